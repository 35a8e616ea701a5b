/**
 * A model whose layers are brought into memory one after the other. Its passes are run layer by layer; one at a time, since they
 * share the memory.
 */
import { assign, type Device, realize, type Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { AdapterOptions } from "../adapter-choice.ts";
import type { KvCache } from "../cache.ts";
import type { Ids } from "../inputs.ts";
import type { Batch, ForwardOptions, Pass } from "../pass.ts";
import { type Ending, streamGradient, written } from "./gradient.ts";
import { isPresent, lend, type PagedWeight, takeBack } from "./paged.ts";
import { Registers } from "./registers.ts";
import { Slots } from "./slots.ts";
import { GradientSums } from "./sums.ts";
import type { WeightFiles } from "./weight-files.ts";

/** The part of a decoder that is streamed. (decoder.ts imports this file, which therefore cannot import the class.) */
interface Streamable {
  readonly device: Device;
  pass(ids: Ids, options: ForwardOptions): Pass;
  lossPass(batch: Batch, choice: AdapterOptions): Pass;
  predictionPass(batch: Batch, choice: AdapterOptions): Pass;
  logits(hidden: Tensor, options: AdapterOptions): Tensor;
}

/** A loss, and its gradients by parameter. */
export interface LossAndGradients {
  readonly loss: number;
  /** In memory that the next call overwrites. Parameters that the loss does not depend on have none. */
  readonly gradients: Map<nn.Parameter, nn.Parameter>;
}

/** Options of a step that is computed layer by layer. */
export interface StreamedLossOptions extends AdapterOptions {
  /** A factor for the loss and its gradients. Default: 1. */
  readonly factor?: number;
  /**
   * The loss as a function of the logits, as of `Decoder.predictions`, in place of the model's own; it may be called several times. `also` are
   * further values to compute with it.
   */
  readonly head?: (logits: Tensor) => { readonly loss: Tensor; readonly also: readonly Tensor[] };
}

/** Runs a model that was loaded with `{ stream: true }`: `Decoder.streamed`. */
export class StreamedModel {
  readonly #model: Streamable;
  readonly #layers: readonly (readonly PagedWeight[])[];
  readonly #files: WeightFiles;
  readonly #slots: Slots;
  readonly #registers: Registers;
  readonly #sums: GradientSums = new GradientSums();
  #last: Promise<unknown> = Promise.resolve();

  /** Use `loadModel` with `{ stream: true }`. */
  constructor(model: Streamable, layers: readonly (readonly PagedWeight[])[], files: WeightFiles) {
    this.#model = model;
    this.#layers = layers;
    this.#files = files;
    this.#slots = new Slots(model.device, layers);
    this.#registers = new Registers(model.device);
  }

  /** The bytes of the weights that are read from their file when they are needed. */
  get streamedBytes(): number {
    const parts = this.#layers.flat().flatMap((one) => one.parts);
    return parts.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The bytes of the two slots that they are read into. */
  get slotBytes(): number {
    return this.#slots.bytes;
  }

  /** As `Decoder.loss`: the loss as a number. */
  async loss(batch: Batch, choice: AdapterOptions = {}): Promise<number> {
    const loss = await this.#run(() => this.#model.lossPass(batch, choice), (x, { finish }) => finish(x)); // prettier-ignore
    return loss.item();
  }

  /** As `Decoder.predictions`, computed. */
  predictions(batch: Batch, choice: AdapterOptions = {}): Promise<Tensor> {
    return this.#run(() => this.#model.predictionPass(batch, choice), (x, { finish }) => finish(x)); // prettier-ignore
  }

  /** The loss, and its gradients with respect to `trained`, for an optimizer's `step` or `accumulate`. */
  gradients(
    batch: Batch,
    trained: readonly nn.Parameter[],
    { factor = 1, head, ...choice }: StreamedLossOptions = {},
  ): Promise<LossAndGradients> {
    return this.#exclusive(async () => {
      const pass = head ? this.#model.predictionPass(batch, choice) : this.#model.lossPass(batch, choice);
      const finish = (x: Tensor): Ending => {
        const { loss, also } = head?.(pass.finish(x)) ?? { loss: pass.finish(x), also: [] };
        return { loss: factor === 1 ? loss : loss.mul(factor), also };
      };
      const space = { slots: this.#slots, registers: this.#registers, sums: this.#sums };
      const loss = await streamGradient({ ...pass, finish }, trained, space);
      return { loss, gradients: this.#sums.result() };
    });
  }

  /**
   * As `Decoder.forward`: the logits, computed; with `last`, only those of the last position. A cache is filled as by
   * `KvCache.commit`.
   */
  forward(ids: Ids, options: ForwardOptions & { readonly last?: boolean } = {}): Promise<Tensor> {
    const { last = false, ...rest } = options;
    const logits = (x: Tensor, { finish }: Pass): Tensor => {
      const hidden = finish(x);
      return this.#model.logits(last ? hidden.narrow(1, hidden.shape[1]! - 1, 1) : hidden, rest);
    };
    return this.#run(() => this.#model.pass(ids, rest), logits, rest.cache);
  }

  #run(make: () => Pass, result: (x: Tensor, pass: Pass) => Tensor, cache?: KvCache): Promise<Tensor> {
    return this.#exclusive(async () => {
      const pass = make();
      const start = pass.start();
      // By turns in two registers, as the inputs of the first two layers in training: the same programs serve both.
      const input = (i: number): nn.Parameter =>
        this.#registers.of(`the input of layer ${i % 2}`, start.shape);
      assign([[input(0), start]]);
      const order = pass.layers.map((_, i) => i);
      await this.#slots.visit(order, async (i) => {
        const y = input(i + 1);
        const value = pass.layers[i]!(input(i));
        assign([[y, value], ...(cache?.takeUpdates() ?? [])]);
        return written(y);
      });
      const value = result(input(order.length), pass);
      realize(value);
      cache?.advance();
      return value;
    });
  }

  /** Runs `work` with the values of `parameters` in memory, in which they stay until its promise is settled. */
  resident<T>(parameters: Iterable<nn.Parameter>, work: () => Promise<T>): Promise<T> {
    return this.#exclusive(async () => {
      const { device } = this.#model;
      const wanted = new Set(parameters);
      const absent = this.#layers
        .flat()
        .filter(({ weight, parts }) => wanted.has(weight) && !parts.every((one) => isPresent(one.parameter)));
      const lent: (() => void)[] = [];
      try {
        for (const { parts, fill } of absent) {
          const memory = parts.map(({ parameter, bytes }) => {
            // kept by the function, since memory is freed with its storage when nothing refers to that
            const storage = device.allocate(bytes, parameter.name);
            lent.push(() => storage.buffer.free());
            return storage.buffer.memory;
          });
          await device.sync(); // work that was submitted before may still use memory that was free
          await fill(memory);
          for (const [i, { parameter }] of parts.entries()) {
            lend(parameter, memory[i]!);
            lent.push(() => takeBack(parameter));
          }
        }
        return await work();
      } finally {
        if (absent.length > 0) await device.sync();
        for (const undo of lent.reverse()) undo();
      }
    });
  }

  /** Frees the memory for layers and for values between them; the next call allocates it again. */
  async free(): Promise<void> {
    await this.#inTurn(async () => {
      await this.#model.device.sync();
      this.#slots.free();
      this.#registers.free();
      this.#sums.free();
    });
  }

  /** Runs `work` once all earlier work is done, with the files open. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#inTurn(() => this.#files.use(work));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
