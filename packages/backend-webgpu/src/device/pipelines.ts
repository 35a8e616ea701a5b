/** Compute pipelines, compiled in parallel and kept by their WGSL text, and the layouts they share. */
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
  readonly #layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
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
      this.#pipelines.delete(kernel.code); // to the end: the oldest is dropped first
      this.#pipelines.set(kernel.code, known);
      return known;
    }
    const pipeline = this.#compile(kernel);
    this.#pipelines.set(kernel.code, pipeline);
    pipeline.catch(() => this.#pipelines.delete(kernel.code));
    if (this.#pipelines.size > KEPT) this.#pipelines.delete(this.#pipelines.keys().next().value!);
    return pipeline;
  }

  #layout({ bindings }: Kernel): { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
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
    const group = this.#device.createBindGroupLayout({ entries: [...storage, uniform] });
    const layout = { group, pipeline: this.#device.createPipelineLayout({ bindGroupLayouts: [group] }) };
    this.#layouts.set(key, layout);
    return layout;
  }

  async #compile(kernel: Kernel): Promise<Pipeline> {
    const { label, code } = kernel;
    this.compiled++;
    const layout = this.#layout(kernel);
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ label, code });
    const invalid = this.#device.popErrorScope();
    const pipeline = this.#device
      .createComputePipelineAsync({ label, layout: layout.pipeline, compute: { module, entryPoint: "main" } })
      .then(
        (gpu) => ({ gpu, layout: layout.group }),
        (cause: unknown) => ({ cause }),
      );
    const [error, result] = await Promise.all([invalid, pipeline]);
    if ("gpu" in result) return result;
    throw shaderError(label, code, error?.message ?? String(result.cause), result.cause);
  }
}
