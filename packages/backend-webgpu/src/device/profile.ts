/** Times every kernel by timestamp queries: one compute pass each, so profiled runs are slower than others. */
import { USAGE } from "./memory.ts";
import type { Kernel } from "../codegen/target.ts";

/** The total time that equal kernels took on the device. */
export interface KernelTime {
  readonly label: string;
  readonly calls: number;
  readonly milliseconds: number;
}

interface Timed {
  readonly kernel: Kernel;
  readonly pipeline: { readonly gpu: GPUComputePipeline };
}

interface Pending {
  readonly labels: readonly string[];
  readonly queries: GPUQuerySet;
  readonly buffer: GPUBuffer;
  readonly staging: GPUBuffer;
}

/** Queries that one query set may hold. */
const MAX_QUERIES = 4096;

function destroy({ queries, buffer, staging }: Pending): void {
  for (const resource of [queries, buffer, staging]) resource.destroy();
}

export class Recorder {
  readonly #device: GPUDevice;
  #pending: Pending[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Encodes each dispatch as a pass with a timestamp at either end. */
  encode(encoder: GPUCommandEncoder, dispatches: readonly Timed[], groups: readonly GPUBindGroup[]): void {
    for (let start = 0; start < dispatches.length; start += MAX_QUERIES / 2) {
      const end = Math.min(dispatches.length, start + MAX_QUERIES / 2);
      this.#encodePart(encoder, dispatches.slice(start, end), groups.slice(start, end));
    }
  }

  #encodePart(
    encoder: GPUCommandEncoder,
    dispatches: readonly Timed[],
    groups: readonly GPUBindGroup[],
  ): void {
    const count = 2 * dispatches.length;
    const size = 8 * count;
    const queries = this.#device.createQuerySet({ type: "timestamp", count });
    const buffer = this.#device.createBuffer({ size, usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC });
    const staging = this.#device.createBuffer({ size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
    dispatches.forEach(({ pipeline, kernel }, i) => {
      const pass = encoder.beginComputePass({
        timestampWrites: {
          querySet: queries,
          beginningOfPassWriteIndex: 2 * i,
          endOfPassWriteIndex: 2 * i + 1,
        },
      });
      pass.setPipeline(pipeline.gpu);
      pass.setBindGroup(0, groups[i]!);
      pass.dispatchWorkgroups(...kernel.groups);
      pass.end();
    });
    encoder.resolveQuerySet(queries, 0, count, buffer, 0);
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, size);
    this.#pending.push({ labels: dispatches.map((d) => d.kernel.label), queries, buffer, staging });
  }

  /** Discards everything encoded so far. */
  discard(): void {
    for (const pending of this.#pending) destroy(pending);
    this.#pending = [];
  }

  /** The times of everything encoded so far, once it has run; the slowest first. */
  async finish(wait: <T>(promise: Promise<T>) => Promise<T>): Promise<KernelTime[]> {
    const times = new Map<string, { calls: number; milliseconds: number }>();
    const pending = this.#pending;
    this.#pending = [];
    for (const one of pending) {
      const { labels, staging } = one;
      await wait(staging.mapAsync(USAGE.MAP_READ));
      const ticks = new BigUint64Array(staging.getMappedRange());
      labels.forEach((label, i) => {
        const time = times.get(label) ?? { calls: 0, milliseconds: 0 };
        time.calls++;
        time.milliseconds += Number(ticks[2 * i + 1]! - ticks[2 * i]!) / 1e6;
        times.set(label, time);
      });
      destroy(one);
    }
    return [...times]
      .map(([label, time]) => ({ label, ...time }))
      .sort((a, b) => b.milliseconds - a.milliseconds);
  }
}
