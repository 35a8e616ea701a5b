/** B's elements are those of a short vector, chosen by random indices (hashed weights, Chen et al. 2015). */
import { defineMethod, init } from "tiedlora";

export const hashed = defineMethod({
  name: "hashed",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    values: { shape: [64], init: init.zeros(), tie: "model" },
    at: { shape: ["out", "rank"], init: init.integers(64), trained: false, bySeed: true },
  },
  product: ["A", "values"],
  lowRank: ({ A, values, at }) => ({ A, B: values.take(at) }),
});
