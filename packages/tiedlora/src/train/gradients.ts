/**
 * Gradients of micro-batches, in memory of the device that every micro-batch uses again. Each is computed by a program of its own, so
 * that its bits do not depend on what is done with them, or where.
 */
import { assign, gradOrNull, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { Adapter } from "../adapter/adapter.ts";
import type { Batch } from "../data/batches.ts";
import type { LanguageModel, LossInputs } from "../model.ts";
import {
  headOf,
  type Loss,
  type LossLike,
  lossOf,
  type LossValue,
  type Read,
  readValue,
  valueOf,
} from "./loss.ts";
import { lossInputs, type MicroBatch, type MicroGradients } from "./micro-batch.ts";

/** The gradients of a micro-batch, by trained parameter, until those of the next one are computed. */
interface Computed extends Read {
  readonly gradients: ReadonlyMap<nn.Parameter, Tensor>;
}

export class GradientMemory {
  readonly #model: LanguageModel;
  readonly #adapter: Adapter;
  readonly #loss: Loss | null;
  readonly #memory = new Map<nn.Parameter, nn.Parameter>();

  /** `loss`: null for the model's own. */
  constructor(model: LanguageModel, adapter: Adapter, loss: Loss | null = null) {
    this.#model = model;
    this.#adapter = adapter;
    this.#loss = loss;
  }

  /** Submits the computation of a micro-batch's gradients with respect to `trained`. */
  async compute(
    { batch, factor }: Pick<MicroBatch, "batch" | "factor">,
    trained: readonly nn.Parameter[],
  ): Promise<Computed> {
    const inputs = lossInputs(this.#model, batch);
    const { streamed } = this.#model;
    if (streamed && this.#loss === null) {
      const { loss, gradients } = await streamed.gradients(inputs, trained, { factor });
      return { loss: Promise.resolve(loss), metrics: Promise.resolve({}), gradients };
    }
    if (streamed) {
      const value = await headOf(this.#loss!, this.#model, this.#adapter, batch);
      let metrics: Required<LossValue>["metrics"] = {};
      const head = (logits: Tensor): { loss: Tensor; also: Tensor[] } => {
        const { loss, metrics: made } = value(logits);
        metrics = made;
        return { loss, also: Object.values(made) };
      };
      const { loss, gradients } = await streamed.gradients(inputs, trained, { factor, head });
      const read = Object.entries(metrics).map(async ([name, one]) => [name, factor * (await one.item())] as const); // prettier-ignore
      const named = Object.fromEntries(await Promise.all(read));
      return { loss: Promise.resolve(loss), metrics: Promise.resolve(named), gradients };
    }
    const { loss: whole, metrics } = this.#value(batch, inputs);
    const loss = factor === 1 ? whole : whole.mul(factor);
    const gradients = new Map<nn.Parameter, nn.Parameter>();
    const updates = gradOrNull(loss, trained).flatMap((gradient, i) => {
      if (gradient === null) return [];
      const memory = this.#of(trained[i]!);
      gradients.set(trained[i]!, memory);
      return [[memory, gradient] as const];
    });
    assign(updates, [loss, ...Object.values(metrics)]);
    return { ...readValue({ loss, metrics }, factor), gradients };
  }

  #value(batch: Batch, inputs: LossInputs): Required<LossValue> {
    if (this.#loss === null) return { loss: this.#model.loss(inputs), metrics: {} };
    return valueOf(this.#loss, this.#model, this.#adapter, batch);
  }

  /** Sets the gradients to values that were computed in another place. */
  set(values: MicroGradients["gradients"], adapter: Adapter): Map<nn.Parameter, nn.Parameter> {
    const gradients = new Map<nn.Parameter, nn.Parameter>();
    for (const [path, parameter] of adapter.stateDict()) {
      const given = values.get(path);
      if (given === undefined) continue;
      const memory = this.#of(parameter);
      memory.set(given);
      gradients.set(parameter, memory);
    }
    return gradients;
  }

  #of(parameter: nn.Parameter): nn.Parameter {
    let memory = this.#memory.get(parameter);
    if (memory === undefined) {
      memory = nn.constantParameter(parameter.shape, 0, this.#model.device, `gradient of ${parameter.name}`);
      this.#memory.set(parameter, memory);
    }
    return memory;
  }
}

/** Computes the gradients of micro-batches for a training in another place, which has its adapter's values sent here. */
export class GradientWorker {
  readonly #adapter: Adapter;
  readonly #memory: GradientMemory;

  /** `adapter` is on `model`, and has the seed and the dropout of the training's; `loss` is the training's. Default: the model's own. */
  constructor(model: LanguageModel, adapter: Adapter, loss?: LossLike) {
    this.#adapter = adapter;
    this.#memory = new GradientMemory(model, adapter, lossOf(loss));
  }

  /** The loss and the gradients of a micro-batch, from the values that the adapter has now. */
  async gradients({ step, batch, factor }: Omit<MicroBatch, "index">): Promise<MicroGradients> {
    const adapter = this.#adapter;
    adapter.train();
    adapter.step = step;
    const { loss, metrics, gradients } = await this.#memory.compute({ batch, factor }, adapter.trainableParameters()); // prettier-ignore
    const values = new Map<string, Float32Array>();
    for (const [path, parameter] of adapter.stateDict()) {
      const gradient = gradients.get(parameter);
      if (gradient !== undefined) values.set(path, (await gradient.data()) as Float32Array);
    }
    return { loss: await loss, metrics: await metrics, gradients: values };
  }
}
