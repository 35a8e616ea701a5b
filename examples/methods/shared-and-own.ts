/** A sum of two products: a pair of rank 4 that all layers share, and a pair of rank 1 for each. */
import { concat } from "@tiedlora/core";
import { defineMethod, init } from "tiedlora";

export const sharedAndOwn = defineMethod({
  name: "shared-and-own",
  factors: {
    A: { shape: [4, "in"], init: init.normal(), tie: "all" },
    B: { shape: ["out", 4], init: init.zeros(), tie: "all" },
    a: { shape: [1, "in"], init: init.normal() },
    b: { shape: ["out", 1], init: init.zeros() },
  },
  product: [["A", "B"], ["a", "b"]], // prettier-ignore
  lowRank: ({ A, B, a, b }) => ({ A: concat([A, a], 0), B: concat([B, b], 1) }),
});
