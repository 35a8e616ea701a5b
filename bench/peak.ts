/** The peak performance of the device under test, measured in the same run: arithmetic in registers, and memory traffic. */
import { CpuBackend } from "@tiedlora/backend-cpu";
import { WebGpuBackend } from "@tiedlora/backend-webgpu/node";
import type { Device, LoopKernel, Operand } from "@tiedlora/core";

export interface Peak {
  /** Floating-point operations, in billions per second. */
  readonly gflops: number;
  /** Bytes read and written when adding 1 to an array that is larger than any cache, in billions per second. */
  readonly gbs: number;
}

export async function measurePeak(device: Device): Promise<Peak> {
  const { backend } = device;
  if (backend instanceof CpuBackend)
    return { gflops: await backend.peakGflops(), gbs: await measureTraffic(device) };
  if (backend instanceof WebGpuBackend)
    return { gflops: await measureShader(backend.device), gbs: await measureTraffic(device) };
  throw new Error(`no way to measure the peak of ${device.name}`);
}

async function fastest(runs: number, run: () => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await run();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

async function measureTraffic({ backend }: Device): Promise<number> {
  const n = 2 ** 24;
  const operand = (buffer: number): Operand => ({ buffer, dtype: "f32", view: { offset: 0, strides: [1] } });
  const step: LoopKernel = {
    type: "loop",
    outer: [n],
    inner: [],
    body: [
      { op: "load", from: operand(0), dtype: "f32" },
      { op: "const", value: 1, dtype: "f32" },
      { op: "add", a: 0, b: 1, dtype: "f32" },
    ],
    stores: [{ to: operand(1), value: 2 }],
  };
  const executable = await backend.compile({
    buffers: [
      { kind: "input", bytes: 4 * n },
      { kind: "output", bytes: 4 * n },
    ],
    scalars: 0,
    steps: [step],
  });
  const [from, to] = [backend.alloc(4 * n), backend.alloc(4 * n)];
  const milliseconds = await fastest(8, async () => {
    executable.run([from], [to], new Float64Array());
    await backend.sync();
  });
  executable.free();
  for (const buffer of [from, to]) buffer.free();
  return (8 * n) / milliseconds / 1e6;
}

/** Sixteen independent chains of multiply-adds on vectors of four. Its loop limit is data, which prevents unrolling. */
const SHADER = `
@group(0) @binding(0) var<storage, read_write> data: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let iterations = u32(data[0].x);
  let x = vec4f(data[1].x);
  ${Array.from({ length: 16 }, (_, i) => `var v${i} = vec4f(f32(id.x) + ${i}.0);`).join("\n  ")}
  for (var i = 0u; i < iterations; i++) {
    ${Array.from({ length: 16 }, (_, i) => `v${i} = fma(v${i}, x, v${i});`).join("\n    ")}
  }
  data[2u + id.x] = ${Array.from({ length: 16 }, (_, i) => `v${i}`).join(" + ")};
}`;
const INVOCATIONS = 64 * 256;

async function measureShader(device: GPUDevice): Promise<number> {
  const pipeline = await device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code: SHADER }) },
  });
  const [STORAGE, COPY_DST] = [0x80, 0x8];
  const buffer = device.createBuffer({ size: 16 * (INVOCATIONS + 2), usage: STORAGE | COPY_DST });
  const entries = [{ binding: 0, resource: { buffer } }];
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const time = async (iterations: number): Promise<number> => {
    device.queue.writeBuffer(buffer, 0, new Float32Array([iterations, 0, 0, 0, -1e-9, 0, 0, 0]));
    return fastest(4, async () => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(INVOCATIONS / 64);
      pass.end();
      device.queue.submit([encoder.finish()]);
      await device.queue.onSubmittedWorkDone();
    });
  };
  // so much work that the time to start it does not matter
  let iterations = 64;
  let milliseconds = await time(iterations);
  while (milliseconds < 100 && iterations < 2 ** 22) {
    iterations *= 4;
    milliseconds = await time(iterations);
  }
  buffer.destroy();
  return (INVOCATIONS * iterations * 16 * 8) / milliseconds / 1e6;
}
