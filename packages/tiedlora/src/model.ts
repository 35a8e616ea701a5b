/**
 * The interfaces that the library requires of a model; `Decoder` of @tiedlora/models implements them. Adapters act on the linears
 * and embeddings of any `nn.Module`; training also needs a loss, and writing a merged model needs the model's files.
 */
import type { Device, Files, Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { OutputFile } from "./output-file.ts";

/** A batch, as the argument of a model's loss: rows of token ids, and which of them are to be predicted. */
export interface LossInputs {
  /** `[batch, length]`: token ids. */
  readonly inputIds: readonly Int32Array[];
  /** `[batch, length]`: 1 where a token is to be predicted. */
  readonly mask: readonly Float32Array[];
  /**
   * `[batch, length]`: the index, within its row, of the example that a token belongs to; -1 for padding. Given if rows hold
   * several examples, or if the model must tell padding apart (see `LanguageModel.lengthMatters`).
   */
  readonly segments?: readonly Int32Array[];
}

/**
 * Runs a model that has only a part of its weights in memory at a time, and reads the others from its files when it needs them:
 * `StreamedModel` of @tiedlora/models.
 */
export interface StreamedLanguageModel {
  /** The loss of a batch. */
  loss(batch: LossInputs): Promise<number>;
  /** The logits of `LanguageModel.predictions`, computed, with other adapters than the active ones if they are given. */
  predictions(batch: LossInputs, options?: { readonly adapters?: nn.AdapterChoice }): Promise<Tensor>;
  /**
   * The loss, times `factor`, and its gradients with respect to `trained`, for an optimizer; the next call overwrites them. With `head`, the
   * loss is a function of the logits, and `also` is computed with it.
   */
  gradients(
    batch: LossInputs,
    trained: readonly nn.Parameter[],
    options: {
      readonly factor: number;
      readonly head?: (logits: Tensor) => { readonly loss: Tensor; readonly also: readonly Tensor[] };
    },
  ): Promise<{ readonly loss: number; readonly gradients: ReadonlyMap<nn.Parameter, Tensor> }>;
  /** Runs `work` with the values of `parameters` in memory. `work` must not use the model in any other way. */
  resident<T>(parameters: Iterable<nn.Parameter>, work: () => Promise<T>): Promise<T>;
}

/** A model that can be trained and evaluated. */
export interface LanguageModel extends nn.Module {
  readonly device: Device;
  /** Whether a sequence's length affects how its tokens are computed, so that padding must not count. Default: false. */
  readonly lengthMatters?: boolean;
  /** How the model is trained and evaluated if not all of its weights are in memory; null or left out if they are. */
  readonly streamed?: StreamedLanguageModel | null;
  /** The mean of -log p over the predicted tokens, in nats: a scalar. */
  loss(batch: LossInputs): Tensor;
  /**
   * The logits from which `loss` is computed, [batch, length - 1, vocabulary]: position t predicts token t + 1. Needed for losses of
   * the outputs alone.
   */
  predictions?(batch: LossInputs): Tensor;
}

/** How the weights of a model are written. */
export interface ModelFileOptions {
  /** The largest size of a file of weights; larger models are split into several files. */
  readonly maxShardBytes?: number;
  /** The type in which all weights are written. Default: the type in which the model holds each. */
  readonly dtype?: "f32" | "f16" | "bf16";
}

/** Weights that are written instead of the model's own, by path; each is computed when it is written. */
export type Replacements = ReadonlyMap<string, () => Promise<Tensor>>;

/** A model that can be written as files. */
export interface SavableModel extends nn.Module {
  /** The files of its weights and its config. */
  files(options: ModelFileOptions & { readonly replace?: Replacements }): OutputFile[];
  /**
   * The files to write into a directory, and in `stale` the names of older files to remove from it. Companion files of
   * `copyFrom`, such as a tokenizer's, are copied along.
   */
  directoryFiles(
    options: ModelFileOptions & { readonly replace?: Replacements; readonly copyFrom?: Files },
  ): Promise<{ readonly files: readonly OutputFile[]; readonly stale: readonly string[] }>;
}

/** How a model is run if not all of its weights are in memory; null if they are. */
export function streamedModel(model: nn.Module): StreamedLanguageModel | null {
  return (model as Pick<LanguageModel, "streamed">).streamed ?? null;
}

/** Runs `work`, which reads `parameters` of a model, with their values in memory. */
export function withWeights<T>(
  model: nn.Module,
  parameters: readonly (nn.Parameter | null)[],
  work: () => Promise<T>,
): Promise<T> {
  return (
    streamedModel(model)?.resident(
      parameters.filter((p) => p !== null),
      work,
    ) ?? work()
  );
}

/** The `model_type` in the model's config; null if the model has no config that names it. */
export function modelTypeOf(model: nn.Module): string | null {
  const { config } = model as { readonly config?: { readonly modelType?: unknown } };
  return typeof config?.modelType === "string" ? config.modelType : null;
}

/** Sets the model's adapter selector, by which a call can choose its adapters; does nothing if there is no free field for one. */
export function setSelector(model: nn.Module, selector: nn.AdapterSelector): void {
  if ("adapters" in model && model.adapters === null) model.adapters = selector;
}
