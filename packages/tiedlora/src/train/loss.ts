/** The losses that can be trained: any function of a model's outputs. The library's own are in losses/; this file says what a loss is. */
import { Tensor } from "@tiedlora/core";
import { refuse } from "@tiedlora/core/arguments";
import type { AdapterChoice } from "@tiedlora/nn";
import type { Adapter } from "../adapter/adapter.ts";
import { adaptersOf } from "../adapter/adapter.ts";
import { type Batch, examplesIn } from "../data/batches.ts";
import type { LanguageModel } from "../model.ts";
import { lossInputs } from "./micro-batch.ts";

/** Numbers by name. */
export type Metrics = Readonly<Record<string, number>>;

/** What a loss is computed from. Position t of a row predicts token t + 1, so there is one position fewer than tokens. */
export interface Outputs {
  readonly model: LanguageModel;
  /** The adapter that is trained, or evaluated; null if a model without one is evaluated. */
  readonly adapter: Adapter | null;
  readonly batch: Batch;
  /** The model's logits, [rows, positions, vocabulary]. */
  readonly logits: Tensor;
  /** The tokens that follow, [rows, positions], i32. */
  readonly targets: Tensor;
  /** 1 where the token that follows counts, 0 elsewhere, [rows, positions], f32. */
  readonly mask: Tensor;
  /**
   * The logits of the same model with other adapters, by default without any, and without gradients: a reference that costs no memory
   * for weights. It is computed in the same program.
   */
  readonly reference: (adapters?: AdapterChoice) => Tensor;
  /** The logits of another model on the same device with the same vocabulary, without gradients. */
  readonly logitsOf: (model: LanguageModel) => Tensor;
}

/** The value of a loss, and what else to report of a batch. */
export interface LossValue {
  /** The loss: a scalar, a mean over the batch's tokens or examples. */
  readonly loss: Tensor;
  /** Scalars to report beside it, by name, which are means as the loss is. */
  readonly metrics?: Readonly<Record<string, Tensor>>;
}

/** The examples that a loss is made for: single texts, pairs of a chosen and a rejected answer, or answers with a label. */
export type ExampleKind = "texts" | "pairs" | "labeled";

/** A loss: `losses` has many, and `train` also takes a function of the outputs alone. */
export interface Loss {
  /** Its name in messages. */
  readonly name: string;
  /** What the examples of its batches are. */
  readonly examples: ExampleKind;
  /** What its value is a mean over, by which batches of one step are weighted. */
  readonly over: "tokens" | "examples";
  /** The names of its metrics, for tables. Default: none are known beforehand. */
  readonly reports?: readonly string[];
  /** Computes the value for a batch, by operations on tensors. */
  compute(outputs: Outputs): Tensor | LossValue;
}

/** A loss, or a function of the outputs to a scalar that is a mean over the predicted tokens of single texts. */
export type LossLike = Loss | ((outputs: Outputs) => Tensor | LossValue);

/** The loss that `given` means; null for none, which is the model's own: the mean of -log p over the predicted tokens. */
export function lossOf(given: LossLike | undefined): Loss | null {
  if (given === undefined) return null;
  if (typeof given === "function")
    return { name: given.name || "the given loss", examples: "texts", over: "tokens", compute: given };
  if (typeof (given as Partial<Loss> | null)?.compute !== "function")
    refuse("loss", given, "loss", "one of losses, e.g. losses.dpo(), or a function of the outputs");
  return given;
}

/** What the batch counts in the mean over several batches. */
export function weightOf(loss: Loss | null, batch: Batch): number {
  return loss?.over === "examples" ? examplesIn(batch) : batch.predicted;
}

/** The value of a loss on a batch, by the model as it is now. Throws if the loss is made for other examples, or gives no scalar. */
export function valueOf(
  loss: Loss,
  model: LanguageModel,
  adapter: Adapter | null,
  batch: Batch,
): Required<LossValue> {
  if (model.streamed)
    throw new Error(
      `${loss.name} needs the outputs of the whole model at once, and the model's weights are read layer by layer (it was loaded with ` +
        "{ stream: true }): train or evaluate it, which compute them first",
    );
  return computed(loss, outputsOf(model, adapter, batch));
}

/**
 * The value of a loss as a function of the model's logits, for a model whose weights are not all in memory: what else the loss reads, the logits
 * with other adapters and those of other models, is computed beforehand. Rejects as `valueOf` throws.
 */
export async function headOf(
  loss: Loss,
  model: LanguageModel,
  adapter: Adapter | null,
  batch: Batch,
): Promise<(logits: Tensor) => Required<LossValue>> {
  const outputs = outputsOf(model, adapter, batch);
  const [choices, others] = [new Map<string, AdapterChoice>(), new Set<LanguageModel>()];
  // Nothing of this graph is computed: it shows what the loss reads.
  computed(loss, {
    ...outputs,
    reference: (adapters = []) => {
      choices.set(JSON.stringify(adapters), adapters);
      return outputs.logits.detach();
    },
    logitsOf: (other) => {
      others.add(other);
      return outputs.logitsOf(other);
    },
  });
  const [references, read] = [new Map<string, Tensor>(), new Map<LanguageModel, Tensor>()];
  for (const [name, adapters] of choices)
    references.set(name, await model.streamed!.predictions(lossInputs(model, batch), { adapters }));
  for (const other of others) {
    const logits = await other.streamed?.predictions(lossInputs(other, batch));
    read.set(other, logits ?? outputs.logitsOf(other));
  }
  return (logits) =>
    computed(loss, {
      ...outputs,
      logits,
      reference: (adapters = []) => references.get(JSON.stringify(adapters))!,
      logitsOf: (other) => read.get(other)!,
    });
}

function computed(loss: Loss, outputs: Outputs): Required<LossValue> {
  checkExamples(loss, outputs.batch);
  const value = loss.compute(outputs);
  const { loss: scalar, metrics = {} } = value instanceof Tensor ? { loss: value } : value;
  for (const [name, one] of Object.entries({ loss: scalar, ...metrics }))
    if (!((one as unknown) instanceof Tensor) || one.size !== 1)
      throw new TypeError(
        `${loss.name}: ${name} is ${(one as unknown) instanceof Tensor ? `of shape [${one.shape.join(", ")}]` : typeof one}; expected a scalar tensor, as of .mean()`,
      );
  return { loss: scalar.reshape([]), metrics };
}

function outputsOf(model: LanguageModel, adapter: Adapter | null, batch: Batch): Outputs {
  const inputs = lossInputs(model, batch);
  const { batch: rows, length } = batch;
  const { device } = model;
  const tail = <T extends Int32Array | Float32Array>(values: T): T => {
    const kept = new (values.constructor as new (n: number) => T)(rows * (length - 1));
    for (let row = 0; row < rows; row++)
      kept.set(values.subarray(row * length + 1, (row + 1) * length), row * (length - 1));
    return kept;
  };
  const shape = [rows, length - 1];
  const logits = predictions(model, batch);
  return {
    model,
    adapter,
    batch,
    logits,
    targets: device.tensor(tail(batch.tokens), { shape, dtype: "i32" }),
    mask: device.tensor(tail(batch.mask), { shape }),
    reference: (adapters = []) =>
      adaptersOf(model).using(adapters, () => model.predictions!(inputs).detach()),
    logitsOf: (other) => {
      if (other.device !== device)
        throw new Error("a loss reads another model, which is on another device; load both on one");
      const found = predictions(other, batch).detach();
      if (found.shape.at(-1) !== logits.shape.at(-1))
        throw new Error(
          `a loss reads a model of ${found.shape.at(-1)} tokens beside one of ${logits.shape.at(-1)}; both need the same vocabulary`,
        );
      return found;
    },
  };
}

function predictions(model: LanguageModel, batch: Batch): Tensor {
  if (model.predictions === undefined)
    throw new Error("a loss of the outputs needs a model that has predictions(batch), as a Decoder has");
  return model.predictions(lossInputs(model, batch));
}

const KINDS: Readonly<Record<ExampleKind, string>> = {
  texts: "single texts, as loadDataset reads them",
  pairs: "pairs of a chosen and a rejected answer, as loadPreferences reads them",
  labeled: "answers with a label, as loadLabeled reads them",
};

function checkExamples({ name, examples }: Loss, batch: Batch): void {
  const kind = batch.kind ?? "texts";
  if (kind !== examples) throw new Error(`${name} needs ${KINDS[examples]}; the batch has ${KINDS[kind]}`);
}

/** A loss and its metrics, as they are read from the device. */
export interface Read {
  readonly loss: Promise<number>;
  readonly metrics: Promise<Metrics>;
}

/** Reads the value of a loss, whose `loss` is multiplied already, and its metrics, which `factor` multiplies. */
export function readValue({ loss, metrics }: Required<LossValue>, factor = 1): Read {
  const read = Promise.all(
    Object.entries(metrics).map(async ([name, one]) => [name, factor * (await one.item())] as const),
  );
  const named = read.then((all) => Object.fromEntries(all));
  named.catch(() => undefined); // awaited with the loss, which may fail first
  return { loss: loss.item(), metrics: named };
}

/** The sums of the losses and metrics of a step's batches, each of which has its share in them already. */
export async function sumOf(
  parts: readonly Read[],
): Promise<{ readonly loss: number; readonly metrics: Metrics }> {
  const values = await Promise.all(parts.map(({ loss }) => loss));
  const metrics: Record<string, number> = {};
  for (const part of parts)
    for (const [name, value] of Object.entries(await part.metrics))
      metrics[name] = (metrics[name] ?? 0) + value;
  return { loss: values.reduce((a, b) => a + b), metrics };
}
