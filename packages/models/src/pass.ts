/** What a decoder is given for a forward pass or a loss, and either of them as parts that can be run one at a time. */
import type { Tensor } from "@tiedlora/core";
import type { AdapterOptions } from "./adapter-choice.ts";
import type { KvCache } from "./cache.ts";
import type { Ids } from "./inputs.ts";
import type { SequenceOptions } from "./sequence.ts";

/** Options of a forward pass. */
export interface ForwardOptions extends SequenceOptions, AdapterOptions {
  /** The keys and values of earlier tokens; the keys and values of the given ids are added to it. */
  readonly cache?: KvCache;
  /**
   * Vectors [batch, length, hidden] to read in place of the rows of the input embedding, for example those of a trained prompt; of
   * the ids, only the shape then matters. Gradients flow into them.
   */
  readonly embeddings?: Tensor;
}

/** A training batch. */
export interface Batch {
  /** Token ids, [batch, length]. */
  readonly inputIds: Ids;
  /** `[batch, length]`: 1 for tokens to predict (from the tokens before them), 0 for others. Default: all 1. */
  readonly mask?: Ids;
  /**
   * `[batch, length]`, for rows that hold several examples one after another: a number for each token, which changes where
   * the next example, or padding, begins. Each example is computed as if it were alone, and its first token is not predicted.
   */
  readonly segments?: readonly ArrayLike<number>[];
  /**
   * Targets other than the input itself, `[batch, length]`, e.g. Hugging Face's labels: position t - 1 predicts label t.
   */
  readonly labels?: Ids;
  /** The label that marks positions without a target. Default -100; null if there are none. */
  readonly ignoreIndex?: number | null;
}

/** A computation of a decoder in parts, in their order. Each part reads no weights but its own, so it can run when they are loaded. */
export interface Pass {
  /** The embedded tokens. */
  readonly start: () => Tensor;
  /** What each layer makes of its input, from the first to the last. */
  readonly layers: readonly ((x: Tensor) => Tensor)[];
  /** The result, from the output of the last layer. */
  readonly finish: (x: Tensor) => Tensor;
}
