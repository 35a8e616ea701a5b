/** The options of all readers of adapter files. */
import type { AdaptOptions } from "../adapter/adapter.ts";
import type { Method } from "../method.ts";

/** How an adapter's files are read. */
export interface LoadOptions extends Pick<AdaptOptions, "name" | "active" | "replace"> {
  /** The declaration that the adapter was trained with, for a method that is not in the library. */
  readonly method?: Method;
  /** Whether the parameters that were trained can be trained further; if false, all are frozen. Default: true. */
  readonly trainable?: boolean;
  /** Whether tensors that are missing or unexpected in peft's files are errors; other shapes always are. Default: true. */
  readonly strict?: boolean;
}
