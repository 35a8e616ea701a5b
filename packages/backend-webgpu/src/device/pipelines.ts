/**
 * Compute pipelines, which are compiled in parallel and cached by their WGSL text, and the bind group layouts that they
 * share.
 */
import { shaderError } from "../errors.ts";
import type { Kernel } from "../codegen/target.ts";

/** A compiled kernel and the layout its bind groups have. */
export interface Pipeline {
  readonly gpu: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const COMPUTE_STAGE = 4; // GPUShaderStage.COMPUTE, a global only in browsers
const KEPT = 4096;

export class PipelineCache {
  readonly #device: GPUDevice;
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #pipelines = new Map<string, Promise<Pipeline>>();
  /** Pipelines compiled so far. */
  compiled = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** The pipeline of a kernel. Rejects with ShaderError. */
  get(kernel: Kernel): Promise<Pipeline> {
    const known = this.#pipelines.get(kernel.code);
    if (known) {
      this.#pipelines.delete(kernel.code); // move it to the end, because the oldest is dropped first
      this.#pipelines.set(kernel.code, known);
      return known;
    }
    const pipeline = this.#compile(kernel);
    this.#pipelines.set(kernel.code, pipeline);
    pipeline.catch(() => this.#pipelines.delete(kernel.code));
    if (this.#pipelines.size > KEPT) this.#pipelines.delete(this.#pipelines.keys().next().value!);
    return pipeline;
  }

  #layout({ bindings }: Kernel): GPUBindGroupLayout {
    const key = bindings.map((b) => (b.write ? "w" : "r")).join("");
    const known = this.#layouts.get(key);
    if (known) return known;
    const storage = bindings.map((b, binding): GPUBindGroupLayoutEntry => ({
      binding,
      visibility: COMPUTE_STAGE,
      buffer: { type: b.write ? "storage" : "read-only-storage" },
    }));
    const uniform: GPUBindGroupLayoutEntry = {
      binding: bindings.length,
      visibility: COMPUTE_STAGE,
      buffer: { type: "uniform" },
    };
    const layout = this.#device.createBindGroupLayout({ entries: [...storage, uniform] });
    this.#layouts.set(key, layout);
    return layout;
  }

  async #compile(kernel: Kernel): Promise<Pipeline> {
    const { label, code } = kernel;
    this.compiled++;
    const layout = this.#layout(kernel);
    // Each pipeline has a layout of its own: where two in a row share one, wgpu (Deno) checks the buffers of the second against the
    // sizes that the first needs.
    const own = this.#device.createPipelineLayout({ bindGroupLayouts: [layout] });
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ label, code });
    const invalid = this.#device.popErrorScope();
    const pipeline = this.#device
      .createComputePipelineAsync({ label, layout: own, compute: { module, entryPoint: "main" } })
      .then(
        (gpu) => ({ gpu, layout }),
        (cause: unknown) => ({ cause }),
      );
    const [error, result] = await Promise.all([invalid, pipeline]);
    if ("gpu" in result) return result;
    throw shaderError(label, code, error?.message ?? String(result.cause), result.cause);
  }
}
