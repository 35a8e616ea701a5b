/** Programs share the memory of their temporaries, and none sees what another leaves there. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend, OutOfMemoryError, type WebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device } from "@tiedlora/core";
import type { DeviceBuffer, Executable, LoopKernel, Program } from "@tiedlora/kernels";
import { decoderStep } from "../../../bench/decoder.ts";
import { skip } from "../../../test/support/gpu.ts";
import { denseOperand } from "../../backend-cpu/test/support/run.ts";

async function withBackend(work: (backend: WebGpuBackend) => Promise<void>): Promise<void> {
  const backend = await createWebGpuBackend();
  try {
    await work(backend);
  } finally {
    backend.close();
  }
}

/** to = from + by, over `length` numbers. */
function plus(length: number, from: number, to: number, by: number): LoopKernel {
  return {
    type: "loop",
    outer: [length],
    inner: [],
    body: [
      { op: "load", from: denseOperand(from, "f32", [length]), dtype: "f32" },
      { op: "const", value: by, dtype: "f32" },
      { op: "add", a: 0, b: 1, dtype: "f32" },
    ],
    stores: [{ to: denseOperand(to, "f32", [length]), value: 2 }],
  };
}

/** Adds `by` to `length` numbers once more than there are temporaries, which have so many bytes, by way of each of them. */
function chain(length: number, by: number, temporaries: readonly number[]): Program {
  const order = [0, ...temporaries.map((_, i) => i + 2), 1];
  return {
    scalars: 0,
    buffers: [
      { kind: "input", bytes: 4 * length },
      { kind: "output", bytes: 4 * length },
      ...temporaries.map((bytes) => ({ kind: "temp", bytes }) as const),
    ],
    steps: order.slice(1).map((to, i) => plus(length, order[i]!, to, by)),
  };
}

const numbers = async (buffer: DeviceBuffer): Promise<number[]> =>
  Array.from(new Float32Array(await buffer.read()));

function bufferOf(backend: WebGpuBackend, values: readonly number[]): DeviceBuffer {
  const buffer = backend.alloc(4 * values.length);
  buffer.write(Float32Array.from(values));
  return buffer;
}

test("programs that run by turns compute what each computes alone", { skip }, async () => {
  await withBackend(async (backend) => {
    // in order of size, of which each makes other blocks larger
    const programs = [
      chain(3, 1, [4096, 16]),
      chain(70, 2, [280, 9000, 20000]),
      chain(5, 3, [20]),
      chain(2000, 4, [8000, 8000, 8000, 30000]),
      chain(4, 5, []),
    ];
    const before = backend.memory().liveBytes;
    const cases = [];
    for (const program of programs) {
      const length = program.buffers[0]!.bytes / 4;
      const given = Array.from({ length }, (_, i) => i % 17);
      const input = bufferOf(backend, given);
      const outputs = [0, 1].map(() => backend.alloc(4 * length));
      const executable = await backend.compile(program);
      executable.run([input], [outputs[0]!], new Float64Array()); // the next programs' memory is not known yet
      const by: number = program.steps.length * [1, 2, 3, 4, 5][cases.length]!;
      cases.push({ executable, input, outputs, wanted: given.map((x) => x + by) });
    }
    for (const { executable, input, outputs } of [...cases, ...cases.toReversed()])
      executable.run([input], [outputs[1]!], new Float64Array());
    for (const { outputs, wanted } of cases)
      for (const output of outputs) assert.deepEqual(await numbers(output), wanted);
    for (const { executable, input, outputs } of cases) {
      executable.free();
      for (const buffer of [input, ...outputs]) buffer.free();
    }
    assert.equal(backend.memory().liveBytes, before);
  });
});

test("a program leaves the memory that another has replaced", { skip }, async () => {
  await withBackend(async (backend) => {
    const input = bufferOf(backend, [1, 2, 3]);
    const output = backend.alloc(12);
    const compile = async (bytes: number): Promise<Executable> => {
      const executable = await backend.compile(chain(3, 1, [bytes]));
      executable.run([input], [output], new Float64Array());
      return executable;
    };
    await compile(16); // afterwards pipelines are known, and nothing waits until the device has answered
    const middle = await compile(8192);
    await compile(20000);
    const fresh = bufferOf(
      backend,
      Array.from({ length: 2048 }, () => 7),
    ); // where the middle one's temporary was
    middle.run([input], [output], new Float64Array());
    assert.deepEqual(await numbers(output), [3, 4, 5]);
    assert.ok((await numbers(fresh)).every((x) => x === 7));
  });
});

test("programs for eight lengths take the memory of one", { skip }, async () => {
  const size = { vocab: 32, dim: 16, hidden: 24, layers: 1, heads: 2, kvHeads: 1, batch: 8 };
  const memory = async (lengths: readonly number[]): Promise<number> => {
    const backend = await createWebGpuBackend();
    const device = new Device(backend);
    const step = decoderStep(device, size);
    for (const length of lengths) await step(length, 0).data();
    assert.equal(device.memory().cachedPrograms, lengths.length);
    await step(lengths[0]!, 0).data();
    const { liveBytes } = backend.memory();
    device.close();
    return liveBytes;
  };
  const [one, two, many] = [await memory([96]), await memory([96, 95]), await memory([65, 70, 74, 79, 83, 88, 95, 96])]; // prettier-ignore
  // each length has batches and losses of its own, but shares everything else
  assert.ok(two < 1.1 * one && many < 1.3 * one, `${one}, ${two} and ${many} bytes`);
});

test("programs go on while a larger one fails for lack of memory", { skip }, async () => {
  await withBackend(async (backend) => {
    const input = bufferOf(backend, [1, 2, 3]);
    const outputs = Array.from({ length: 4 }, () => backend.alloc(12));
    const small = await backend.compile(chain(3, 1, [12, 12]));
    small.run([input], [outputs[0]!], new Float64Array());
    await backend.sync();
    const large = await backend.compile(chain(3, 1, [12, backend.caps.maxBufferBytes - 15]));
    large.run([input], [outputs[1]!], new Float64Array());
    small.run([input], [outputs[2]!], new Float64Array()); // before the failure is known
    await assert.rejects(backend.sync(), OutOfMemoryError);
    await assert.rejects(numbers(outputs[1]!), OutOfMemoryError);
    small.run([input], [outputs[3]!], new Float64Array());
    for (const output of [outputs[0]!, outputs[2]!, outputs[3]!])
      assert.deepEqual(await numbers(output), [4, 5, 6]);
    large.free();
    small.free();
    await backend.sync();
  });
});
