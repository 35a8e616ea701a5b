/**
 * What the library needs of a model: these interfaces, which `Decoder` of @tiedlora/models implements. Adapters sit on the linears
 * and embeddings of any `nn.Module`; training needs a loss, and writing a merged model its files.
 */
import type { Device, Files, Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { OutputFile } from "./output-file.ts";

/** A batch as a model's loss takes it: rows of token ids, and which of them are to be predicted. */
export interface LossInputs {
  /** `[batch, length]` */
  readonly inputIds: readonly Int32Array[];
  /** `[batch, length]`: 1 where a token is to be predicted. */
  readonly mask: readonly Float32Array[];
  /** `[batch, length]`: which example of its row a token belongs to; given where rows hold several, or padding matters. */
  readonly segments?: readonly Int32Array[];
}

/** A model that can be trained and evaluated. */
export interface LanguageModel extends nn.Module {
  readonly device: Device;
  /** Whether the length of a sequence changes how its tokens are computed, so that padding must be told apart. Default: false. */
  readonly lengthMatters?: boolean;
  /** The mean over the predicted tokens of -log p. */
  loss(batch: LossInputs): Tensor;
}

/** How the weights of a model are written. */
export interface ModelFileOptions {
  /** Files of weights above this are split. */
  readonly maxShardBytes?: number;
  /** The precision of all weights. Default: that in which each is held. */
  readonly dtype?: "f32" | "f16" | "bf16";
}

/** Weights written instead of the model's own, by path: computed when they are written. */
export type Replacements = ReadonlyMap<string, () => Promise<Tensor>>;

/** A model that can be written as files. */
export interface SavableModel extends nn.Module {
  /** Its weights and its config. */
  files(options: ModelFileOptions & { readonly replace?: Replacements }): OutputFile[];
  /** What to write into a directory, and which older files must go from there; the companions of `copyFrom`, such as a tokenizer's, are copied along. */
  directoryFiles(
    options: ModelFileOptions & { readonly replace?: Replacements; readonly copyFrom?: Files },
  ): Promise<{ readonly files: readonly OutputFile[]; readonly stale: readonly string[] }>;
}

/** The `model_type` of a model whose config says it; null: unknown. */
export function modelTypeOf(model: nn.Module): string | null {
  const { config } = model as { readonly config?: { readonly modelType?: unknown } };
  return typeof config?.modelType === "string" ? config.modelType : null;
}

/** Lets calls of a model choose their adapters, if it has a place for a selector that is still empty. */
export function setSelector(model: nn.Module, selector: nn.AdapterSelector): void {
  if ("adapters" in model && model.adapters === null) model.adapters = selector;
}
