/** What the graph of a decoder's pass depends on beside its inputs: which parameters and adapters are in its modules. */
import type { Parameter } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { Decoder } from "./decoder.ts";
import { Router } from "./experts.ts";

/** A module of a decoder, as far as it has these fields. */
interface Host {
  readonly forward: unknown;
  readonly weight: Parameter;
  readonly bias?: Parameter | null;
  readonly adapter?: nn.LinearAdapter | nn.EmbeddingAdapter | nn.NormAdapter | null;
}

const classes = [nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, Router];
/** The functions of modules that depend on nothing but their arguments and the fields of a `Host`. */
const PURE: ReadonlySet<unknown> = new Set(classes.map(({ prototype }) => prototype.forward as unknown));
const { hidden, logits } = Decoder.prototype as unknown as Readonly<Record<string, unknown>>;

/**
 * Two passes with the same inputs build the same graph if all entries of their states are identical. Null if it is not known what the
 * graph depends on: an adapter does not say it, or a function of the model or of a module has been replaced, as hooks do.
 */
export function graphState(model: Decoder): readonly unknown[] | null {
  if (model.hidden !== hidden || model.logits !== logits) return null;
  const state: unknown[] = [];
  for (const { forward, weight, bias, adapter } of model.computing as unknown as readonly Host[]) {
    if (!PURE.has(forward)) return null;
    state.push(weight, bias, adapter);
    if (!adapter) continue;
    if (adapter.state === undefined) return null;
    for (const one of adapter.state()) state.push(one);
  }
  return state;
}
