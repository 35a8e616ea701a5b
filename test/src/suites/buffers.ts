/** Device memory: partial writes and reads, and the order of operations. */
import type { Backend, Program } from "@tiedlora/core";
import type { ConformanceCase, Context } from "./context.ts";

function expect(what: string, found: ArrayLike<number>, wanted: readonly number[]): void {
  const list = Array.from(found);
  if (list.length === wanted.length && list.every((x, i) => x === wanted[i])) return;
  throw new Error(`${what}: [${list.join(", ")}] instead of [${wanted.join(", ")}]`);
}

/** y = x + s over `n` elements. */
function addScalar(n: number): Program {
  const view = { offset: 0, strides: [1] };
  return {
    buffers: [
      { kind: "input", bytes: 4 * n },
      { kind: "output", bytes: 4 * n },
    ],
    scalars: 1,
    steps: [
      {
        type: "loop",
        outer: [n],
        inner: [],
        body: [
          { op: "load", from: { buffer: 0, dtype: "f32", view }, dtype: "f32" },
          { op: "scalar", slot: 0, dtype: "f32" },
          { op: "add", a: 0, b: 1, dtype: "f32" },
        ],
        stores: [{ to: { buffer: 1, dtype: "f32", view }, value: 2 }],
      },
    ],
  };
}

async function partialAccess(backend: Backend): Promise<void> {
  const buffer = backend.alloc(24);
  buffer.write(Float32Array.of(1, 2, 3, 4, 5, 6));
  buffer.write(Float32Array.of(0, 30, 40, 0).subarray(1, 3), 8);
  expect("write at an offset", new Float32Array(await buffer.read()), [1, 2, 30, 40, 5, 6]);
  expect("read at an offset", new Float32Array(await buffer.read(8, 8)), [30, 40]);
  expect("read to the end", new Float32Array(await buffer.read(16)), [5, 6]);
  buffer.free();
}

async function order(backend: Backend): Promise<void> {
  const executable = await backend.compile(addScalar(3));
  const [x, y, z] = [backend.alloc(12), backend.alloc(12), backend.alloc(12)];
  const data = Float32Array.of(1, 2, 3);
  x.write(data);
  data.fill(99); // write() must have copied the data
  executable.run([x], [y], Float64Array.of(10));
  const first = y.read();
  executable.run([y], [z], Float64Array.of(100));
  x.write(Float32Array.of(4, 5, 6));
  executable.run([x], [y], Float64Array.of(20));
  expect("a read sees what was submitted before it", new Float32Array(await first), [11, 12, 13]);
  expect("a run sees what was run before it", new Float32Array(await z.read()), [111, 112, 113]);
  expect("a run sees what was written before it", new Float32Array(await y.read()), [24, 25, 26]);
  const scalars = Float64Array.of(1);
  executable.run([x], [y], scalars);
  scalars[0] = 1000; // run() must have copied the scalars too
  expect("scalars are taken at the call", new Float32Array(await y.read()), [5, 6, 7]);
  await backend.sync();
  for (const buffer of [x, y, z]) buffer.free();
  executable.free();
}

async function accounting(backend: Backend): Promise<void> {
  await backend.sync();
  const before = backend.memory().liveBytes;
  const buffer = backend.alloc(1 << 16);
  const during = backend.memory().liveBytes - before;
  if (during < 1 << 16) throw new Error(`alloc of ${1 << 16} bytes raised liveBytes by ${during}`);
  buffer.free();
  await backend.sync();
  const after = backend.memory().liveBytes;
  if (after !== before)
    throw new Error(`liveBytes was ${before} before an allocation and ${after} after its end`);
  if (backend.memory().peakBytes < before + (1 << 16)) throw new Error("peakBytes missed an allocation");
}

export function bufferCases(context: Context): ConformanceCase[] {
  const on = (name: string, f: (backend: Backend) => Promise<void>): ConformanceCase => ({
    name,
    run: async () => f((await context.device()).backend),
  });
  return [
    on("buffers: partial writes and reads", partialAccess),
    on("buffers: writes, runs and reads happen in order", order),
    on("buffers: memory is accounted for", accounting),
  ];
}
