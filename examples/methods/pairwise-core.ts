/** One pair A, B for all layers, and between them a small matrix for every two successive layers. */
import { defineMethod, init } from "tiedlora";

export const pairwiseCore = defineMethod({
  name: "pairwise-core",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    B: { shape: ["out", "rank"], init: init.normal(), tie: "all" },
    M: { shape: ["rank", "rank"], init: init.zeros(), tie: { blocks: 2 } },
  },
  lowRank: ({ A, B, M }) => ({ A: M.matmul(A), B }),
});
