/** One adapter on the base model, and its training, one step at a time. */
import { concat, grad, type Tensor } from "@tiedlora/core";
import { type Pretrained, streamTexts } from "@tiedlora/models";
import {
  adapt,
  type Adapter,
  adapterOptimizer,
  type Batch,
  lossInputs,
  type StepReport,
  train,
} from "tiedlora";
import { labelOf, methodOf } from "../method.ts";
import type { Completed, Experiment, RunChoice } from "../protocol.ts";
import type { Data } from "./data.ts";

export class Run {
  readonly id: number;
  readonly adapter: Adapter;
  /** The name under which it is shown. */
  readonly label: string;
  readonly #base: Pretrained;
  #reports: AsyncGenerator<StepReport> | null = null;
  #batch: Data["batch"] | null = null;

  constructor(id: number, label: string, adapter: Adapter, base: Pretrained) {
    this.id = id;
    this.label = label;
    this.adapter = adapter;
    this.#base = base;
  }

  /** A new adapter; it is not active until `use`. */
  static async create(choice: RunChoice, base: Pretrained, seed: number): Promise<Run> {
    const name = `run ${choice.id}`;
    const adapter = await adapt(base.model, methodOf(choice.method), { seed, name, active: false });
    return new Run(choice.id, labelOf(choice.method), adapter, base);
  }

  prepare(choice: RunChoice, { steps }: Experiment, { batch }: Data): void {
    const optimizer = adapterOptimizer(this.adapter, { steps, lr: choice.lr });
    this.#batch = batch;
    this.#reports = train({ model: this.#base.model, adapter: this.adapter, optimizer, steps, batch });
  }

  /** Takes the next step; null if all are done. Rejects with DivergedError if numbers stop being finite. */
  async step(): Promise<StepReport | null> {
    const next = await this.#reports!.next();
    return next.done === true ? null : next.value;
  }

  /** The norm of the gradient of each trained factor on the batch of `step`, by path. */
  async gradientNorms(step: number): Promise<Record<string, number>> {
    const named = [...this.adapter.stateDict()].filter(([, parameter]) => parameter.requiresGrad);
    const { model } = this.#base;
    const gradients = grad(
      model.loss(lossInputs(model, this.#batch!(step))),
      named.map(([, parameter]) => parameter),
    );
    const norms = concat(gradients.map((g: Tensor) => g.square().sum().sqrt().reshape([1])));
    const values = await norms.data();
    return Object.fromEntries(named.map(([path], i) => [path, values[i]!]));
  }

  /** The current loss on one batch. */
  async loss(batch: Batch): Promise<number> {
    const { model } = this.#base;
    return model.loss(lossInputs(model, batch)).item();
  }

  async end(): Promise<void> {
    await this.#reports?.return(undefined);
    this.#reports = null;
  }
}

const COMPLETION_TOKENS = 40;

/**
 * Completes prompts with the model and its active adapters. `between` is awaited after each token; null if it resolves to
 * false.
 */
export async function complete(
  base: Pretrained,
  prompts: readonly string[],
  between: () => Promise<boolean> = () => Promise.resolve(true),
): Promise<string[] | null> {
  if (prompts.length === 0) return [];
  const texts = prompts.map(() => "");
  const options = { maxTokens: COMPLETION_TOKENS, stop: ["\n"] };
  for await (const { row, text } of streamTexts(base.model, base.tokenizer, prompts, options)) {
    texts[row] += text;
    if (!(await between())) return null;
  }
  return texts.map((text) => text.trim());
}

const LIKELIEST = 5;

/** Completes a prompt, and returns the most likely next tokens too. Throws if the prompt is empty. */
export async function tryPrompt(base: Pretrained, prompt: string): Promise<Completed> {
  const { model, tokenizer } = base;
  const ids = tokenizer.encode(prompt);
  if (ids.length === 0) throw new Error("the prompt is empty; write a few words");
  const all = model.logits(model.hidden([ids]).narrow(1, ids.length - 1, 1));
  const [logits, probabilities] = [await all.data(), await all.softmax(-1).data()];
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b]! - probabilities[a]!);
  const next = order
    .slice(0, LIKELIEST)
    .map((id) => ({ token: tokenizer.decode([id]), probability: probabilities[id]! }));
  return { text: (await complete(base, [prompt]))![0]!, next, logits: Float32Array.from(logits) };
}
