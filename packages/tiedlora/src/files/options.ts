/** What all readers of adapter files take. */
import type { AdaptOptions } from "../adapter/adapter.ts";
import type { Method } from "../method.ts";

/** How an adapter's files are read. */
export interface LoadOptions extends Pick<AdaptOptions, "name" | "active" | "replace"> {
  /** For adapters of methods that are not in the library: the same declaration as when it was trained. */
  readonly method?: Method;
  /** Whether what was trained can be trained on. Default: true. */
  readonly trainable?: boolean;
  /** false: tensors that are missing or unexpected in peft's files are let pass. Other shapes never are. Default: true. */
  readonly strict?: boolean;
}
