/** An update that is not linear in its input, so it cannot be merged: B tanh(A x). */
import { defineMethod, init } from "tiedlora";

export const squashed = defineMethod({
  name: "squashed",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: { blocks: 2 } },
    B: { shape: ["out", "rank"], init: init.zeros() },
  },
  forward: ({ A, B }, { x, y }) => y.add(x.matmul(A.transpose()).tanh().matmul(B.transpose())),
});
