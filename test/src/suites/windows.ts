/**
 * Slices whose start changes: the first start has its own program, and all others share one. Values and gradients must equal
 * those of the reference exactly, since all numbers are small integers.
 */
import { arange, type Device, grad, Parameter, realize, reference, type Tensor } from "@tiedlora/core";
import type { ConformanceCase, Context } from "./context.ts";

const SHAPE = [64, 12] as const;
const STARTS = 62;

const USES: { readonly [name: string]: (x: Tensor, start: number) => Tensor } = {
  "of rows": (x, start) => x.narrow(0, start, 3),
  "of columns": (x, start) => x.narrow(1, start % 9, 4).mul(2),
  "of a flat tensor": (x, start) => x.reshape([SHAPE[0] * SHAPE[1]]).narrow(0, start, 100),
  "with steps": (x, start) => x.slice([start % 50, (start % 50) + 9, 2], [start % 5, (start % 5) + 7, 3]),
  "around a padding": (x, start) => x.pad([[1, 2], [0, 3]]).narrow(0, start, 3), // prettier-ignore
  "under a reduction": (x, start) => x.narrow(0, start, 3).max(1),
  "in a product": (x, start) => x.narrow(0, start, 3).matmul(x.narrow(0, start % 50, 12)),
  "of indices": (x, start) => x.take(arange(SHAPE[0]).narrow(0, start, 3)),
};

/** The value and the gradient of a use, computed by one program. */
async function compute(
  use: (x: Tensor, start: number) => Tensor,
  x: Parameter,
  start: number,
): Promise<number[][]> {
  const y = use(x, start);
  const [g] = grad(y.mul(y).sum(), [x]) as [Tensor];
  realize(y, g);
  return [[...(await y.data())], [...(await g.data())]];
}

function wholeNumbers(device: Device): Parameter {
  const values = Float32Array.from({ length: SHAPE[0] * SHAPE[1] }, (_, i) => ((i * 7) % 11) - 5);
  return Parameter.from(device, values, SHAPE);
}

/** Calls `counted` for every program that the device's backend compiles from now on. */
function countPrograms({ backend }: Device, counted: () => void): void {
  const compile = backend.compile.bind(backend);
  Object.assign(backend, {
    compile: (program: Parameters<typeof compile>[0]) => {
      counted();
      return compile(program);
    },
  });
}

export function windowCases(context: Context): ConformanceCase[] {
  return Object.entries(USES).map(([name, use]) => ({
    name: `a slice ${name} that moves is two programs`,
    run: async () => {
      const device = await context.fresh();
      try {
        let programs = 0;
        countPrograms(device, () => programs++);
        const x = wholeNumbers(device);
        for (let start = 0; start < STARTS; start++) {
          const found = String(await compute(use, x, start));
          // a new device compiles a program for this start alone
          const yard = reference();
          const wanted = String(await compute(use, wholeNumbers(yard), start));
          yard.close();
          if (found !== wanted)
            throw new Error(`start ${start}: value and gradient are ${found}, but should be ${wanted}`);
        }
        if (programs !== 2) throw new Error(`${STARTS} starts took ${programs} programs instead of 2`);
      } finally {
        device.close();
      }
    },
  }));
}
