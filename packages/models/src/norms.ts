/** The norms of decoders that @tiedlora/nn does not have: those that store their weight as w - 1. */
import type { Parameter } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { NormKind } from "./architectures.ts";

/** LayerNorm that stores its weight as w - 1, so that weight decay pulls towards the identity (NeMo's LayerNorm1P). */
export class LayerNorm1P extends nn.LayerNorm {
  override get scaleOffset(): number {
    return 1;
  }
}

/** RMSNorm that stores its weight as w - 1 (Gemma). */
export class RMSNorm1P extends nn.RMSNorm {
  override get scaleOffset(): number {
    return 1;
  }
}

type MakeNorm = (weight: Parameter, bias: Parameter | null, eps: number) => nn.Norm;

const MAKE: { readonly [K in NormKind]: MakeNorm } = {
  rms: (weight, _bias, eps) => new nn.RMSNorm(weight, eps),
  layer: (weight, bias, eps) => new nn.LayerNorm(weight, bias, eps),
  rms1p: (weight, _bias, eps) => new RMSNorm1P(weight, eps),
  layer1p: (weight, bias, eps) => new LayerNorm1P(weight, bias, eps),
};

/** A norm of the given kind around its parameters. */
export function makeNorm(kind: NormKind, weight: Parameter, bias: Parameter | null, eps: number): nn.Norm {
  return MAKE[kind](weight, bias, eps);
}
