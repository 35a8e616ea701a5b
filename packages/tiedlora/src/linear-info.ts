/** What planning knows of a module. */

/**
 * What has to be known of a module to adapt it; a model and a config without weights can both say it. An embedding is a
 * linear map too, of one-hot vectors: `in` is its number of rows, `out` their length.
 */
export interface LinearInfo {
  /** Path as in Hugging Face's models: "model.layers.0.self_attn.q_proj". */
  readonly path: string;
  readonly in: number;
  readonly out: number;
  /** Default: "linear". Others than these two are ignored. */
  readonly kind?: string;
}
