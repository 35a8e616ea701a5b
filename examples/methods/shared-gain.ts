/** One pair A, B for all layers, as in Tied-LoRA; each layer has a single number that says how much of it applies. */
import { defineMethod, init } from "tiedlora";

export const sharedGain = defineMethod({
  name: "shared-gain",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    B: { shape: ["out", "rank"], init: init.normal(), tie: "all" },
    gain: { shape: [1], init: init.zeros() },
  },
  lowRank: ({ A, B, gain }) => ({ A: A.mul(gain), B }),
});
