/** Normalisation over the last axis. */
import type { Device, Parameter, Tensor } from "@tiedlora/core";
import { constantParameter } from "./init.ts";
import { Module } from "./module.ts";

/** (x - mean) / √(variance + eps), variance biased, as in Ba et al. 2016 and PyTorch. */
export function layerNorm(x: Tensor, eps = 1e-5): Tensor {
  const centred = x.sub(x.mean(-1, { keepdims: true }));
  return centred.mul(centred.square().mean(-1, { keepdims: true }).add(eps).rsqrt());
}

/** x / √(mean(x²) + eps), as in Zhang and Sennrich 2019. */
export function rmsNorm(x: Tensor, eps = 1e-6): Tensor {
  return x.mul(x.square().mean(-1, { keepdims: true }).add(eps).rsqrt());
}

/** layerNorm(x) · weight + bias, over a last axis of length `dim`. */
export class LayerNorm extends Module {
  weight: Parameter;
  bias: Parameter | null;
  readonly eps: number;

  constructor(weight: Parameter, bias: Parameter | null = null, eps = 1e-5) {
    super();
    this.weight = weight;
    this.bias = bias;
    this.eps = eps;
  }

  /** Weight 1, bias 0. */
  static init(
    dim: number,
    options: { readonly device: Device; readonly bias?: boolean; readonly eps?: number },
  ): LayerNorm {
    const weight = constantParameter([dim], 1, options.device, "weight");
    const bias = options.bias === false ? null : constantParameter([dim], 0, options.device, "bias");
    return new LayerNorm(weight, bias, options.eps);
  }

  forward(x: Tensor): Tensor {
    const y = layerNorm(x, this.eps).mul(this.weight);
    return this.bias ? y.add(this.bias) : y;
  }
}

/** rmsNorm(x) · weight. */
export class RMSNorm extends Module {
  weight: Parameter;
  readonly eps: number;

  constructor(weight: Parameter, eps = 1e-6) {
    super();
    this.weight = weight;
    this.eps = eps;
  }

  /** Weight 1. */
  static init(dim: number, options: { readonly device: Device; readonly eps?: number }): RMSNorm {
    return new RMSNorm(constantParameter([dim], 1, options.device, "weight"), options.eps);
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.eps).mul(this.weight);
  }
}
