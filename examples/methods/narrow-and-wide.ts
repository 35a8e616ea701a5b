/** Factors that only some sites have: attention gets a shared pair, the MLP's last linear a scale of its outputs. */
import { defineMethod, init } from "tiedlora";

export const narrowAndWide = defineMethod({
  name: "narrow-and-wide",
  target: ["q_proj", "v_proj", "down_proj"],
  factors: {
    A: { shape: [4, "in"], init: init.normal(), tie: "all", on: ({ path }) => !path.includes("mlp") },
    B: { shape: ["out", 4], init: init.zeros(), tie: "all", on: ({ path }) => !path.includes("mlp") },
    g: { shape: ["out"], init: init.zeros(), on: ({ path }) => path.includes("mlp") },
  },
  product: [["A", "B"], ["g"]],
  forward: ({ A, B, g }, { x, y }) =>
    g ? y.add(y.mul(g)) : y.add(x.matmul(A.transpose()).matmul(B.transpose())),
});
