/** Matrix products as WGSL: chooses the kernels to use. */
import type { LibraryCall } from "@tiedlora/kernels";
import { renderLoop } from "../loop.ts";
import type { Kernel, Target } from "../target.ts";
import { MatmulFrame } from "./frame.ts";
import { matrixKernel, suitsMatrix } from "./matrix.ts";
import { type Product, splitProduct } from "./product.ts";
import { rowKernel, suitsRow } from "./row.ts";
import { subgroupKernel } from "./subgroup.ts";
import { tiledKernel } from "./tiled.ts";
import { asLoop } from "./vector.ts";

export type MatmulCall = Extract<LibraryCall, { name: "matmul" }>;

/** The dispatches of a matmul. */
export function renderMatmul(call: MatmulCall, bufferBytes: readonly number[], target: Target): Kernel[] {
  const { batch, m, n, k, epilogue } = call.params;
  const whole: Product = {
    batch,
    m,
    n,
    k,
    inputs: call.inputs,
    epilogue: epilogue ?? {
      body: [{ op: "product", dtype: "f32" }],
      stores: [{ to: call.outputs[0]!, value: 0 }],
    },
    origin: [...batch, m, n].map(() => 0),
  };
  const isPlain = call.inputs.every(({ quantized }) => !quantized);
  if (isPlain && !target.software && Math.min(m, n) === 1 && k.length === 1 && k[0]! >= 32) {
    return renderLoop(asLoop(whole), bufferBytes, target); // a matrix times a vector: one reduction per element
  }
  return splitProduct(whole, bufferBytes, target).map((p) => renderProduct(p, bufferBytes, target));
}

function renderProduct(p: Product, bufferBytes: readonly number[], target: Target): Kernel {
  // lanes lie along the columns, so the columns should be the longer side
  const swap = p.n < 16 && p.m > p.n;
  const frame = new MatmulFrame(p, swap, bufferBytes, target);
  if (target.software && target.subgroup >= 4) return subgroupKernel(frame, target);
  if (p.inputs.some(({ quantized }) => quantized) && suitsRow(frame)) return rowKernel(frame);
  return suitsMatrix(frame, target) ? matrixKernel(frame, target) : tiledKernel(frame, target);
}
