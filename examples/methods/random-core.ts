/** LoRA-XS with random matrices in place of singular vectors; the file names their seed. */
import { defineMethod, init } from "tiedlora";

export const randomCore = defineMethod({
  name: "random-core",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "shape", trained: false, bySeed: true },
    B: { shape: ["out", "rank"], init: init.normal(), tie: "shape", trained: false, bySeed: true },
    R: { shape: ["rank", "rank"], init: init.zeros() },
  },
  lowRank: ({ A, B, R }) => ({ A: R.matmul(A), B }),
});
