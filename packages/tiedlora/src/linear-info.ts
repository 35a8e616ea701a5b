/** The description of a module that planning an adapter needs. */

/**
 * The description of a module that is needed to adapt it; it can be read from a model, or from a config without weights. An
 * embedding is a linear map of one-hot vectors: `in` is the number of its rows, `out` their length. The scale of a norm is a linear map of the
 * number 1: `in` is 1, `out` its length.
 */
export interface LinearInfo {
  /** The path, as in Hugging Face's models: "model.layers.0.self_attn.q_proj". */
  readonly path: string;
  readonly in: number;
  readonly out: number;
  /** "linear" (default), "embedding" or "norm". Modules of any other kind are ignored. */
  readonly kind?: string;
}
