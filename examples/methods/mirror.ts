/** B is made of A, by a random matrix that the file names by its seed: ΔW = diag(v) R Aᵀ A. */
import { defineMethod, init } from "tiedlora";

export const mirror = defineMethod({
  name: "mirror",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    R: { shape: ["out", "in"], init: init.normal(), tie: "all", trained: false, bySeed: true },
    v: { shape: ["out"], init: init.zeros() },
  },
  lowRank: ({ A, R, v }) => ({ A, B: R.matmul(A.transpose()).mul(v.unsqueeze(1)) }),
});
