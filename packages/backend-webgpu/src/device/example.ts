/** Matrix products of given sizes, to test a device with. */
import type { Operand, Program } from "@tiedlora/kernels";

export interface ProductSize {
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** C = A B: buffers 0 and 1 are the inputs, 2 is the output, all f32 and contiguous. */
export function productProgram({ batch, m, n, k }: ProductSize): Program {
  return {
    scalars: 0,
    buffers: [
      { kind: "input", bytes: 4 * batch * m * k },
      { kind: "input", bytes: 4 * batch * k * n },
      { kind: "output", bytes: 4 * batch * m * n },
    ],
    steps: [
      {
        type: "library",
        name: "matmul",
        params: { batch: [batch], m, n, k: [k] },
        inputs: [operand(0, m, k), operand(1, k, n)],
        outputs: [operand(2, m, n)],
      },
    ],
  };
}

function operand(buffer: number, rows: number, columns: number): Operand {
  return { buffer, dtype: "f32", view: { offset: 0, strides: [rows * columns, columns, 1] } };
}
