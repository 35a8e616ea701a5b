/** No matrices at all: inputs and outputs of each linear are scaled, z = (1 + b) ⊙ W ((1 + a) ⊙ x). */
import { defineMethod, init } from "tiedlora";

export const scales = defineMethod({
  name: "scales",
  factors: {
    a: { shape: ["in"], init: init.zeros() },
    b: { shape: ["out"], init: init.zeros() },
  },
  product: [["a"], ["b"]],
  forward: ({ a, b }, { x, y, weight }) => y.add(x.mul(a).matmul(weight.transpose())).mul(b.add(1)),
});
