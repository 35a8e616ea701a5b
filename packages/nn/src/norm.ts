/** Normalization over the last axis. */
import type { Device, Parameter, Tensor } from "@tiedlora/core";
import { build, checkNumber, checkOptions, checkTensors, checkWhole } from "@tiedlora/core/extend";
import type { GraphState } from "./adapters.ts";
import { checkParameter, constantParameter } from "./init.ts";
import { Module } from "./module.ts";

function checkNorm(what: string, x: Tensor, eps: number): void {
  build.needFloat(what, checkTensors(what, [x])[0]!.node);
  checkNumber(`${what}: eps`, eps, "number from 0", eps >= 0);
}

/** (x - mean) / √(variance + eps) over the last axis, with the biased variance, as in Ba et al. 2016 and PyTorch. */
export function layerNorm(x: Tensor, eps = 1e-5): Tensor {
  checkNorm("layerNorm", x, eps);
  const centred = x.sub(x.mean(-1, { keepdims: true }));
  return centred.mul(centred.square().mean(-1, { keepdims: true }).add(eps).rsqrt());
}

/** x / √(mean(x²) + eps) over the last axis, as in Zhang and Sennrich 2019. */
export function rmsNorm(x: Tensor, eps = 1e-6): Tensor {
  checkNorm("rmsNorm", x, eps);
  return x.mul(x.square().mean(-1, { keepdims: true }).add(eps).rsqrt());
}

/** Changes the scale of a norm, as `LinearAdapter` changes the output of a linear layer. */
export interface NormAdapter {
  /** Returns x · the new scale [..., dim], from the normalized input x [..., dim] and the norm's own scale [dim]. */
  apply(x: Tensor, scale: Tensor, layer: Norm): Tensor;
  /** See `GraphState`. */
  state?(): GraphState;
}

/** A norm over the last axis, whose normalized input is multiplied by a scale. */
export abstract class Norm extends Module {
  /** [dim]. */
  weight: Parameter;
  /** Added to the variance, or to the mean square. */
  readonly eps: number;
  /** The adapter that changes the scale, or null. */
  adapter: NormAdapter | null = null;

  /** `name` is that of the class, for messages. */
  constructor(name: string, weight: Parameter, eps: number) {
    super();
    this.weight = checkParameter(`${name}: the weight`, weight, [null]);
    this.eps = checkNumber(`${name}: eps`, eps, "number from 0", eps >= 0);
  }

  /** What the normalized input is multiplied by, [dim]: the weight, plus `scaleOffset`. */
  get scale(): Tensor {
    return this.scaleOffset === 0 ? this.weight : this.weight.add(this.scaleOffset);
  }
  /** The difference of the scale and the stored weight: 0, or 1 in norms that store their scale as w - 1. */
  get scaleOffset(): number {
    return 0;
  }

  /** A normalized x times the scale, which an adapter may change. */
  protected scaled(x: Tensor): Tensor {
    return this.adapter ? this.adapter.apply(x, this.scale, this) : x.mul(this.scale);
  }

  /** x [..., dim] -> [..., dim]. */
  abstract forward(x: Tensor): Tensor;
}

/** layerNorm(x) · scale + bias, over a last axis of length `dim`. */
export class LayerNorm extends Norm {
  /** [dim], or null. */
  bias: Parameter | null;

  constructor(weight: Parameter, bias: Parameter | null = null, eps = 1e-5) {
    super("LayerNorm", weight, eps);
    this.bias = bias && checkParameter("LayerNorm: the bias", bias, weight.shape);
  }

  /** A new layer with weight 1 and bias 0 (`bias: false`: none). */
  static init(
    dim: number,
    options: { readonly device: Device; readonly bias?: boolean; readonly eps?: number },
  ): LayerNorm {
    checkWhole("LayerNorm: dim", dim, 1);
    checkOptions("LayerNorm", options, "{ device }");
    const weight = constantParameter([dim], 1, options.device, "weight");
    const bias = options.bias === false ? null : constantParameter([dim], 0, options.device, "bias");
    return new LayerNorm(weight, bias, options.eps);
  }

  override forward(x: Tensor): Tensor {
    const y = this.scaled(layerNorm(x, this.eps));
    return this.bias ? y.add(this.bias) : y;
  }
}

/** rmsNorm(x) · scale, over a last axis of length `dim`. */
export class RMSNorm extends Norm {
  constructor(weight: Parameter, eps = 1e-6) {
    super("RMSNorm", weight, eps);
  }

  /** A new layer with weight 1. */
  static init(dim: number, options: { readonly device: Device; readonly eps?: number }): RMSNorm {
    checkWhole("RMSNorm: dim", dim, 1);
    checkOptions("RMSNorm", options, "{ device }");
    return new RMSNorm(constantParameter([dim], 1, options.device, "weight"), options.eps);
  }

  override forward(x: Tensor): Tensor {
    return this.scaled(rmsNorm(x, this.eps));
  }
}
