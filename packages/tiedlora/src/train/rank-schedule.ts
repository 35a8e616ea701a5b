/**
 * AdaLoRA's schedule of ranks (Zhang et al. 2023, arXiv 2303.10512, section 3.3): while an adapter trains, the number of triplets
 * (λ and its two vectors) in the whole model falls along a cubic curve, and the least important ones are set to zero. A triplet's
 * importance is |λ|, the simpler of the paper's two.
 */
import type { TypedArray } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { EMA } from "@tiedlora/nn/optim";
import { checkOptions, checkWhole } from "@tiedlora/core/arguments";
import type { Adapter } from "../adapter/adapter.ts";

/** Settings of `RankSchedule`. */
export interface RankScheduleOptions {
  /** The number of steps of the whole training. */
  readonly steps: number;
  /** The mean rank of modules at the end; at most the rank that the adapter was declared with. */
  readonly rank: number;
  /** The number of steps at the beginning in which nothing is pruned. Default: a tenth of the steps. */
  readonly warmup?: number | undefined;
  /** The number of steps at the end in which the ranks stay as they are. Default: three tenths of the steps. */
  readonly final?: number | undefined;
  /** The number of steps from one pruning to the next. Default: a hundredth of the steps, at least 1. */
  readonly every?: number | undefined;
}

const NAMES = ["steps", "rank", "warmup", "final", "every"];

/**
 * Prunes an adapter of `methods.adaLora` while it trains:
 *
 * ```ts
 * const schedule = new RankSchedule(adapter, { steps, rank: 4 });
 * const pauseAfter = (step: number) => schedule.due(step);
 * for await (const { step } of train({ model, adapter, optimizer, batch, steps, pauseAfter })) await schedule.apply(step);
 * ```
 */
export class RankSchedule {
  readonly #adapter: Adapter;
  readonly #lambdas: readonly nn.Parameter[];
  readonly #end: number;
  readonly #settings: { readonly [K in keyof Required<RankScheduleOptions>]: number };

  /** Throws for another method, and for a schedule that ends above its start or has no steps in which it could prune. */
  constructor(adapter: Adapter, options: RankScheduleOptions) {
    const what = "RankSchedule";
    checkOptions(what, options, "{ steps: 200, rank: 4 }", NAMES);
    const steps = checkWhole(`${what}: steps`, options.steps, 1);
    const rank = checkWhole(`${what}: rank`, options.rank, 1);
    const warmup = checkWhole(`${what}: warmup`, options.warmup ?? Math.floor(steps / 10), 0);
    const final = checkWhole(`${what}: final`, options.final ?? Math.floor((3 * steps) / 10), 0);
    const every = checkWhole(`${what}: every`, options.every ?? Math.max(1, Math.floor(steps / 100)), 1);
    if (adapter.method.name !== "ada-lora")
      throw new Error(
        `${what}: the adapter's method is ${adapter.method.name}, which has no triplets to prune; use methods.adaLora`,
      );
    if (warmup + final >= steps)
      throw new RangeError(
        `${what}: ${warmup} steps before pruning and ${final} after it leave none of ${steps} to prune in; give fewer`,
      );
    this.#adapter = adapter;
    this.#lambdas = adapter.select({ factors: ["lambda"] });
    this.#end = rank * this.#lambdas.length;
    if (this.#end > this.#start)
      throw new RangeError(
        `${what}: the schedule ends at rank ${rank}, above its start: the adapter has a mean rank of ${this.#start / this.#lambdas.length}. ` +
          `Declare the method with a higher rank, or end at a lower one`,
      );
    this.#settings = { steps, rank, warmup, final, every };
  }

  get #start(): number {
    return this.#lambdas.reduce((sum, { size }) => sum + size, 0);
  }

  /** The step after which the ranks stay as they are. */
  get last(): number {
    return this.#settings.steps - this.#settings.final;
  }

  /** The number of triplets of the whole model that are left after `step` steps. */
  budget(step: number): number {
    const { steps, warmup, final } = this.#settings;
    const [start, end] = [this.#start, this.#end];
    const share = Math.min(1, Math.max(0, (step - warmup) / (steps - final - warmup)));
    return Math.round(end + (start - end) * (1 - share) ** 3);
  }

  /** Whether triplets are pruned after `step` steps. */
  due(step: number): boolean {
    const { warmup, every } = this.#settings;
    const { last } = this;
    return step === last || (step > warmup && step < last && (step - warmup) % every === 0);
  }

  /**
   * Sets the least important triplets to zero, as many as the budget after `step` steps says; does nothing if none are due. From the
   * end of the schedule on, they stay zero.
   * @param average moving averages of the adapter, in which they are zero too
   */
  async apply(step: number, average?: EMA): Promise<void> {
    if (!this.due(step)) return;
    const values = await Promise.all(this.#lambdas.map(async (one) => Float32Array.from(await one.data())));
    const order = values
      .flatMap((list, i) => Array.from(list, (value, j) => ({ size: Math.abs(value), i, j })))
      .sort((a, b) => b.size - a.size);
    const kept = values.map((list) => new Float32Array(list.length));
    for (const { i, j } of order.slice(0, this.budget(step))) kept[i]![j] = 1;
    const averaged = average === undefined ? [] : this.#lambdas.map((one) => average.average(one));
    const averages = await Promise.all(averaged.map((one) => one.data()));
    this.#lambdas.forEach((parameter, i) => {
      const pruned = (all: TypedArray): Float32Array =>
        Float32Array.from(all, (value, j) => (kept[i]![j] === 1 ? value : 0));
      parameter.set(pruned(values[i]!));
      averaged[i]?.set(pruned(averages[i]!));
      if (step === this.last) this.#fix(parameter, kept[i]!);
    });
  }

  /** Goes on after `step` steps of the same training, whose values the adapter has: what was pruned at the end stays zero. */
  async resume(step: number): Promise<void> {
    if (step < this.last) return;
    for (const parameter of this.#lambdas)
      this.#fix(
        parameter,
        Float32Array.from(await parameter.data(), (value) => (value === 0 ? 0 : 1)),
      );
  }

  #fix(parameter: nn.Parameter, kept: Float32Array): void {
    this.#adapter.mask({ factors: ["lambda"], match: matching(parameter.name) }, kept);
  }

  /** The number of triplets of each module that are not zero, by the path of the module's λ. */
  async ranks(): Promise<Map<string, number>> {
    const counted = this.#lambdas.map(async (one): Promise<[string, number]> => {
      return [one.name, Array.from(await one.data()).filter((value) => value !== 0).length];
    });
    return new Map(await Promise.all(counted));
  }
}

/** A regular expression that matches exactly this path. */
function matching(path: string): RegExp {
  return new RegExp(`^${path.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)}$`);
}
