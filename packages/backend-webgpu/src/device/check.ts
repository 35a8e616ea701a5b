/**
 * A check of subgroup matrices, an experimental extension: before they are used, the device has to compute a small product
 * with them.
 */
import type { Backend, DeviceBuffer } from "@tiedlora/kernels";
import { productProgram } from "./example.ts";

/** Sizes that need several tiles and are not multiples of a tile's. */
const [BATCH, M, N, K] = [2, 70, 75, 45];

const entry = (i: number): number => ((i * 7919) % 7) - 3;

const program = productProgram({ batch: BATCH, m: M, n: N, k: K });

/** Whether `backend` multiplies small integers without error; false also if it cannot at all. */
export async function multipliesExactly(backend: Backend): Promise<boolean> {
  const executable = await Promise.resolve(backend.compile(program)).catch(() => undefined);
  if (!executable) return false;
  const [a, b, c] = program.buffers.map(({ bytes }) => backend.alloc(bytes)) as [
    DeviceBuffer,
    DeviceBuffer,
    DeviceBuffer,
  ];
  const [left, right] = [a, b].map(({ bytes }) =>
    Float32Array.from({ length: bytes / 4 }, (_, i) => entry(i)),
  ) as [Float32Array, Float32Array];
  try {
    a.write(left);
    b.write(right);
    executable.run([a, b], [c], new Float64Array());
    const found = new Float32Array(await c.read());
    return found.every((x, i) => x === product(left, right, i));
  } catch {
    return false;
  } finally {
    executable.free();
    for (const buffer of [a, b, c]) buffer.free();
  }
}

/** Element `i` of the product of all batches. */
function product(left: Float32Array, right: Float32Array, i: number): number {
  const [column, row, batch] = [i % N, Math.floor(i / N) % M, Math.floor(i / N / M)];
  let sum = 0;
  for (let k = 0; k < K; k++) sum += left[(batch * M + row) * K + k]! * right[(batch * K + k) * N + column]!;
  return sum;
}
