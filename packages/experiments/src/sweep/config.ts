/** The complete description of a run of a sweep: two runs of one config give the same result on one kind of device. */
import type { QuantizeKind } from "@tiedlora/models";
import type { ScheduleName } from "@tiedlora/nn/optim";
import { hash32 } from "../toy-tasks/rng.ts";
import type { ByParameter, LossName, LossOptions, MethodName, OptimizerName, StartName } from "tiedlora";

/** The `method` of the base model without an adapter, which is measured once for each task. */
export const BASELINE = "none";

/** A schedule of ranks, whose steps are those of the run: see RankScheduleOptions of tiedlora. */
export interface SweepRanks {
  readonly rank: number;
  readonly warmup?: number | undefined;
  readonly final?: number | undefined;
  readonly every?: number | undefined;
}

/** The options of losses that sweeps have. */
type SweepLossOptions = Pick<
  LossOptions,
  "beta" | "labelSmoothing" | "zLoss" | "temperature" | "teacherWeight" | "regularize"
>;

/** One run of a sweep: a method with its settings on one task, from one seed. */
export interface RunConfig extends SweepLossOptions {
  /** "base" or "base-gpt2", the embedded models, or a Hugging Face directory. */
  readonly model: string;
  /** The form to which weights are quantized while the model is loaded; without it, they are not. */
  readonly quantize?: QuantizeKind | undefined;
  readonly task: string;
  /** The directory of the task's files; null for tasks that need none. */
  readonly data: string | null;
  readonly method: MethodName | typeof BASELINE;
  readonly rank: number;
  /** The start of A and B; without it, the method's own. */
  readonly init?: StartName | undefined;
  /** Options that only this method has. */
  readonly methodOptions?: Readonly<Record<string, unknown>> | undefined;
  /** The mean rank of ada-lora at the end, to which ranks fall while it trains, and when they do. */
  readonly rankSchedule?: SweepRanks | undefined;
  readonly target: string;
  readonly dropout: number;
  readonly seed: number;
  readonly steps: number;
  /**
   * The step, below `steps`, at which a search first looks at the run, which then ends without a test. A run that goes on later is
   * another one, without `until` or with a higher one. Its learning rates are those of a run of all `steps`.
   */
  readonly until?: number | undefined;
  readonly batch: number;
  /** The most tokens of an example. */
  readonly seq: number;
  readonly lr: number;
  readonly schedule: ScheduleName;
  readonly warmup: number;
  readonly weightDecay: number;
  /** Without it, AdamW. */
  readonly optimizer?: OptimizerName | undefined;
  /** The decay rates of the optimizer's moments; without them, the optimizer's own. */
  readonly beta1?: number | undefined;
  readonly beta2?: number | undefined;
  /** What is minimized; without it, cross-entropy. Validation measures cross-entropy in any case, so that runs can be compared. */
  readonly loss?: LossName | undefined;
  /** The model that a distillation learns from: "base", or a Hugging Face directory. */
  readonly teacher?: string | undefined;
  /** The ratio of LoRA+; without it, B has the learning rate of the other factors. */
  readonly loraPlus?: number | undefined;
  /** Factors of the learning rate, by factor, module or pattern. */
  readonly rates?: ByParameter | undefined;
  /** Weight decays by factor, module or pattern, in place of `weightDecay`. */
  readonly decays?: ByParameter | undefined;
  readonly clip: number;
  /** The share of themselves that moving averages keep in a step, which are validated and tested; without it, there are none. */
  readonly ema?: number | undefined;
  /** Steps between validations. */
  readonly every: number;
  /** The number of validations without a lower loss after which training stops; null: it never does. */
  readonly patience: number | null;
  /** The most examples for training, validation and test. */
  readonly examples: { readonly train: number; readonly valid: number; readonly test: number };
  /** The seed of the test's questions, if the task is generated; without it, that of the others, 0. */
  readonly testSeed?: number | undefined;
  /** Measure the loss alone, generate nothing. */
  readonly lossOnly: boolean;
  /** Write down the loss of each test example too; without it, only their mean. */
  readonly exampleLosses?: true | undefined;
}

/** A name for a run's file: readable, and different for any two different configs. */
export function runId(config: RunConfig): string {
  return config.until === undefined ? wholeId(config) : `${wholeId(config)}-to-${config.until}`;
}

/** The name of the whole run of which a config may be the beginning: the same for all that differ in `until` alone. */
export function wholeId(config: RunConfig): string {
  const known = wholeIds.get(config);
  if (known !== undefined) return known;
  const id = newWholeId(config);
  wholeIds.set(config, id);
  return id;
}

/** The names that were computed: a sweep asks for each of its ten thousand again and again. */
const wholeIds = new WeakMap<RunConfig, string>();

function newWholeId(given: RunConfig): string {
  const { until: _until, ...config } = given;
  const { task, method, rank, seed } = config;
  const text = JSON.stringify(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  const hash = [text, `${text}.`].map((part) => hash32(part).toString(16).padStart(8, "0")).join("");
  return `${task}-${method}${method === BASELINE ? "" : `-r${rank}-s${seed}`}-${hash}`;
}

/** A point of a curve. */
export type Point = readonly [step: number, loss: number];

/** The result of a run that ended at `config.until`: it was trained and validated, but not tested. */
export interface RungResult {
  readonly id: string;
  readonly config: RunConfig;
  /** The number of trained parameters; below, that of all parameters of the adapter. */
  readonly trainable: number;
  readonly total: number;
  /** The number of steps that were trained; fewer than configured after an early stop. */
  readonly steps: number;
  /** The step with the lowest validation loss; its factors are those that a test measures. */
  readonly bestStep: number;
  /** The training loss; each point is a mean over a few steps. */
  readonly curve: readonly Point[];
  readonly valid: readonly Point[];
  /** The time of training alone. */
  readonly seconds: number;
  /** The seconds from the claim of the run to its result, with evaluations; results of earlier versions have none. */
  readonly duration?: number | undefined;
  readonly tokensPerSecond: number;
  readonly device: string;
  /** A remark on the data, e.g. that a split had to be divided; null if there is none. */
  readonly note: string | null;
}

/** What the task's first metric and the loss were computed from, example by example. */
export interface ExampleScores {
  /** A fingerprint of the questions, by which runs that were asked the same ones are known. */
  readonly questions: string;
  /** The numbers of each example, separated by commas; the examples by spaces. None if only losses were measured. */
  readonly scores?: string | undefined;
  /** In the same form, the sum of -log p over the answer's tokens, and their number; only with `exampleLosses`. */
  readonly losses?: string | undefined;
}

/** The result of a whole run. */
export interface RunResult extends RungResult {
  readonly test: {
    readonly count: number;
    readonly skipped: number;
    readonly loss: number;
    readonly perplexity: number;
    /** The scores in percent; the task's main metric first. Empty if only the loss was measured. */
    readonly scores: Readonly<Record<string, number>>;
    /** Results of earlier versions, and of runs that measured the loss alone, have none. */
    readonly examples?: ExampleScores | undefined;
  };
  /** The texts that were generated for the first questions. */
  readonly samples: readonly { readonly prompt: string; readonly text: string; readonly answer: string }[];
}

/** The result of a run: tested if it is a whole one. */
export type Outcome = RunResult | RungResult;

/** Whether a result is that of a whole run. */
export const isWhole = (outcome: Outcome): outcome is RunResult => "test" in outcome;

/** The lowest validation loss of a run, at its `bestStep`; Infinity if there was no validation. */
export const validationLoss = ({ valid }: Pick<Outcome, "valid">): number =>
  valid.reduce((least, [, loss]) => Math.min(least, loss), Infinity);

/** A run that failed. */
export interface RunFailure {
  readonly id: string;
  readonly config: RunConfig;
  readonly message: string;
}
