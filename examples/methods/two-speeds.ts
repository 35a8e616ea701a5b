/** LoRA+ with one A for all layers: each layer's B learns sixteen times as fast. */
import { defineMethod, init } from "tiedlora";

export const twoSpeeds = defineMethod({
  name: "two-speeds",
  rank: 4,
  learningRate: 0.002,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    B: { shape: ["out", "rank"], init: init.zeros(), rate: 16 },
  },
  lowRank: ({ A, B }) => ({ A, B }),
});
