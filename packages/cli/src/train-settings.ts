/** The settings of `tiedlora train`, one table for flags, files, defaults and help. */
import { SCHEDULE_NAMES, type ScheduleName } from "@tiedlora/nn/optim";
import { METHOD_NAMES, type MethodName } from "tiedlora";
import {
  LEARNING_RATES,
  OPTIMIZER_BETAS,
  OPTIMIZER_NAMES,
  OPTIMIZER_RATES,
  type OptimizerName,
} from "tiedlora";
import { START_NAMES, type StartName, STARTS } from "tiedlora";
import { METRIC_FORMATS, type MetricFormat } from "./run/metrics.ts";
import { TASKS } from "@tiedlora/experiments/tasks";
import type { BiasMode, Modules } from "tiedlora";
import { CHAT_TEMPLATE_NAMES } from "./chat-templates.ts";
import { LOSS_SETTINGS, type LossSettings } from "./loss-settings.ts";
import { BACKEND_NAMES, type BackendName } from "./device.ts";
import { type Quantize, QUANTIZE_ABOUT, QUANTIZE_NAMES } from "./quantized.ts";
import {
  flag,
  indices,
  listOf,
  modules,
  namesList,
  number,
  numbersByName,
  oneOf,
  optionsByName,
  path,
  text,
  whole,
} from "./kinds.ts";
import type { Settings } from "./settings.ts";
import { STREAM_HELP } from "./streaming.ts";

/** The modules that `train`, `params` and sweeps adapt by default. The library's default, and the demo's, is the paper's "qkv". */
export const DEFAULT_TARGET = "all-linear";

export interface DataSettings {
  readonly data: string;
  readonly promptTemplate?: string;
  readonly promptColumn?: string;
  readonly completionColumn?: string;
  readonly separator?: string;
  readonly seq: number;
}

export interface TrainSettings extends DataSettings, LossSettings {
  readonly model: string;
  readonly quantize?: Quantize;
  readonly stream: boolean;
  readonly task?: string;
  readonly chatTemplate?: string;
  readonly valid?: string;
  readonly validSplit?: number;
  readonly also?: Readonly<Record<string, number>>;
  readonly shuffleBuffer?: number;
  readonly pack: boolean;
  readonly initFrom?: string;
  readonly initDigest?: string;
  readonly init?: StartName;
  readonly initExamples?: number;
  readonly method: MethodName;
  readonly methodOptions?: Readonly<Record<string, unknown>>;
  readonly rank: number;
  readonly alpha?: number;
  readonly target: Modules;
  readonly layers?: readonly number[];
  readonly rankPattern?: Readonly<Record<string, number>>;
  readonly rankSchedule?: Readonly<Record<string, number>>;
  readonly alphaPattern?: Readonly<Record<string, number>>;
  readonly modulesToSave?: readonly string[];
  readonly bias: BiasMode;
  readonly trainedTokens?: readonly number[];
  readonly dropout: number;
  readonly steps?: number;
  readonly epochs?: number;
  readonly batch: number;
  readonly accumulate: number;
  readonly optimizer: OptimizerName;
  readonly lr: number;
  readonly rates?: Readonly<Record<string, number>>;
  readonly loraPlus?: number;
  readonly schedule: ScheduleName;
  readonly warmup?: number;
  readonly weightDecay: number;
  readonly decays?: Readonly<Record<string, number>>;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly clip: number;
  readonly ema?: number;
  readonly checkpointing: boolean;
  readonly activations: (typeof ACTIVATIONS)[number];
  readonly evalEvery: number;
  readonly patience?: number;
  readonly saveEvery: number;
  readonly log: readonly MetricFormat[];
  readonly callbacks?: string;
  readonly seed: number;
  readonly backend: BackendName;
  readonly out: string;
}

const DATA = "data";
const ACTIVATIONS = ["f32", "f16", "bf16"] as const;
const BIAS_MODES = ["none", "adapted", "all"] as const satisfies readonly BiasMode[];
const TASK_NAMES = TASKS.map(({ name }) => name);

/** How examples are read; shared with the commands that do not train. */
const DATA_SETTINGS: Settings<DataSettings> = {
  data: {
    group: DATA,
    kind: path("path"),
    about:
      "examples: a .jsonl, .json, .csv, .tsv or .txt file, also with .gz; a directory with train, valid and test files; - for JSON lines " +
      "on standard input; with --task, the directory of the task's files but for a generated one",
    required: ({ task }) =>
      task === undefined || TASKS.some(({ name, needsFiles }) => name === task && needsFiles),
  },
  promptColumn: {
    group: DATA,
    kind: text("name"),
    about: "the field that holds the prompt, if its name is not prompt",
  },
  completionColumn: {
    group: DATA,
    kind: text("name"),
    about: "the field that holds the completion; the loss is on it alone",
  },
  promptTemplate: {
    group: DATA,
    kind: text("template"),
    about: 'a prompt of several fields: alpaca, or a text such as "Question: {question} Answer:"',
  },
  separator: {
    group: DATA,
    kind: text("text"),
    about:
      "text between every prompt and its completion: not learned, and kept with the adapter (default: a space, unless there is white space)",
  },
  seq: { group: DATA, kind: whole(2), about: "the most tokens of an example", fallback: 256 },
};

export const TRAIN_SETTINGS: Settings<TrainSettings> = {
  model: {
    group: "model",
    kind: path("dir"),
    about:
      "the base model: a Hugging Face directory, or a name on its hub: owner/name, or owner/name@revision",
    required: true,
  },
  quantize: { group: "model", kind: oneOf(QUANTIZE_NAMES), about: QUANTIZE_ABOUT },
  backend: {
    group: "model",
    kind: oneOf(BACKEND_NAMES),
    about: `where to compute: cpu, webgpu, or reference (slow, float64)`,
    fallback: "cpu",
  },
  stream: { group: "model", kind: flag, about: STREAM_HELP, fallback: false },
  ...DATA_SETTINGS,
  task: {
    group: DATA,
    kind: oneOf(TASK_NAMES),
    about: `train on the questions of a task: ${TASK_NAMES.join(", ")}`,
  },
  chatTemplate: {
    group: DATA,
    kind: text("file"),
    about: `a chat template in place of the model's, kept with the adapter: a Jinja file, or ${CHAT_TEMPLATE_NAMES.join(", ")}`,
  },
  valid: {
    group: DATA,
    kind: path("file"),
    about: "held-out examples (default: the valid file of a data directory)",
  },
  validSplit: {
    group: DATA,
    kind: number({ above: 0 }),
    about: "hold out some of the examples: a share of them below 1, such as 0.1, or a number",
  },
  also: {
    group: DATA,
    kind: numbersByName,
    about:
      "further files of examples and their weights, where --data has 1: chat.jsonl=0.5,code.jsonl=2; needs --steps",
  },
  shuffleBuffer: {
    group: DATA,
    kind: whole(1),
    about:
      "read --data while training, as a file larger than memory needs, and draw from a buffer of this many examples; needs --steps",
  },
  pack: {
    group: DATA,
    kind: flag,
    about: "join short examples into sequences of --seq tokens",
    fallback: false,
  },
  initFrom: {
    group: "adapter",
    kind: path("dir"),
    about:
      "an adapter to start from, as train, peft or mlx-lm writes it, or its name on the hub: its method, rank, alpha and target are kept",
  },
  initDigest: {
    group: "adapter",
    kind: text("sha256"),
    about: "the SHA-256 that the tensors of --init-from must have for training to start",
  },
  init: {
    group: "adapter",
    kind: oneOf(START_NAMES),
    about: `what A and B of lora start from: ${START_NAMES.join(", ")} (default: random numbers and zeros)`,
  },
  initExamples: {
    group: "adapter",
    kind: whole(1),
    about: "how many examples eva, corda and lora-ga observe (default: 32)",
  },
  method: {
    group: "adapter",
    kind: oneOf(METHOD_NAMES),
    about: `${METHOD_NAMES.join(", ")} (with --init: lora, or lora-residual where B A does not start at zero)`,
    fallback: "tl6",
    follows: ({ init }) =>
      init === undefined ? undefined : STARTS[init].subtracted ? "lora-residual" : "lora",
  },
  methodOptions: {
    group: "adapter",
    kind: optionsByName,
    about:
      "options that only some methods have: bases=16 (nola), top-k=4 (vb-lora), tokens=[5, 6] (trained-tokens)",
  },
  rank: { group: "adapter", kind: whole(1), about: "rank of the update", fallback: 8 },
  alpha: {
    group: "adapter",
    kind: number({ above: 0 }),
    about: "the update is multiplied by alpha / rank (by alpha / √rank in rslora; default: the rank)",
  },
  target: {
    group: "adapter",
    kind: modules,
    about:
      "what is adapted: all-linear (all linear layers but the output embedding), qkv (queries, keys and values, as in the " +
      "Tied-LoRA paper), module names, or /pattern/",
    fallback: DEFAULT_TARGET,
  },
  layers: {
    group: "adapter",
    kind: indices("layers"),
    about: "the layers that are adapted, from 0: 0-3,7 (default: all)",
  },
  rankPattern: {
    group: "adapter",
    kind: numbersByName,
    about: "ranks of single modules, by name or pattern as in PEFT: q_proj=16,layers.0.*=4",
  },
  rankSchedule: {
    group: "adapter",
    kind: numbersByName,
    about:
      "how the ranks of ada-lora fall while it trains, to a mean of rank: rank=4,warmup=20,final=60,every=2",
  },
  alphaPattern: {
    group: "adapter",
    kind: numbersByName,
    about: "alphas of single modules, as --rank-pattern",
  },
  modulesToSave: {
    group: "adapter",
    kind: namesList,
    about: "modules that are trained whole, as copies in the adapter: norm,lm_head; *norms for all norms",
  },
  bias: {
    group: "adapter",
    kind: oneOf(BIAS_MODES),
    about: "which biases of the model are trained too: none, those of adapted modules, or all",
    fallback: "none",
  },
  trainedTokens: {
    group: "adapter",
    kind: indices("ids of tokens"),
    about:
      "tokens whose rows of the input embedding are trained too, by their ids: 32000-32003 (default: none)",
  },
  dropout: {
    group: "adapter",
    kind: number({ min: 0, below: 1 }),
    about: "dropout of the adapter's input",
    fallback: 0,
  },
  ...LOSS_SETTINGS,
  steps: { group: "training", kind: whole(1), about: "training steps (default: 100)" },
  epochs: {
    group: "training",
    kind: number({ above: 0 }),
    about: "passes over the examples, instead of steps",
  },
  batch: { group: "training", kind: whole(1), about: "examples in memory at once", fallback: 4 },
  accumulate: { group: "training", kind: whole(1), about: "batches per step", fallback: 1 },
  optimizer: {
    group: "training",
    kind: oneOf(OPTIMIZER_NAMES),
    about: `how steps follow from gradients: ${OPTIMIZER_NAMES.join(", ")}`,
    fallback: "adamw",
  },
  lr: {
    group: "training",
    kind: number({ above: 0 }),
    about:
      "highest learning rate (default: the method's own, measured on a small model; larger models need a lower one)",
    follows: ({ method, optimizer }) => LEARNING_RATES[method] * OPTIMIZER_RATES[optimizer],
  },
  rates: {
    group: "training",
    kind: numbersByName,
    about:
      "factors of the learning rate, by factor, module or pattern: B=16, q_proj=0.5, q_proj.B=2, layers.0=0.1 (the first that matches)",
  },
  loraPlus: {
    group: "training",
    kind: number({ above: 0 }),
    about: "LoRA+: how many times the learning rate of A that of B is; 16 in its paper",
  },
  schedule: {
    group: "training",
    kind: oneOf(SCHEDULE_NAMES),
    about: `how the learning rate falls: ${SCHEDULE_NAMES.join(", ")}`,
    fallback: "cosine",
  },
  warmup: {
    group: "training",
    kind: whole(0),
    about: "steps over which the learning rate rises (default: a tenth of all steps, at most 50)",
  },
  weightDecay: {
    group: "training",
    kind: number({ min: 0 }),
    about: "weight decay (default: 0.01; sgd and sm3 have none)",
    follows: ({ optimizer }) => (optimizer === "sgd" || optimizer === "sm3" ? 0 : 0.01),
  },
  decays: {
    group: "training",
    kind: numbersByName,
    about: "weight decay by factor, module or pattern, in place of --weight-decay: B=0, u=0.1",
  },
  beta1: {
    group: "training",
    kind: number({ min: 0, below: 1 }),
    about: "decay rate of the gradient's mean, of adamw, lion and muon (default: 0.9)",
    follows: ({ optimizer }) => OPTIMIZER_BETAS[optimizer]?.[0],
  },
  beta2: {
    group: "training",
    kind: number({ min: 0, below: 1 }),
    about: "decay rate of its square (adamw: 0.98; muon: 0.999), or of lion's momentum (0.99)",
    follows: ({ optimizer }) => OPTIMIZER_BETAS[optimizer]?.[1],
  },
  clip: {
    group: "training",
    kind: number({ above: 0 }),
    about: "the largest norm of all gradients together: longer ones are scaled down to it",
    fallback: 1,
  },
  ema: {
    group: "training",
    kind: number({ min: 0, below: 1 }),
    about:
      "evaluate and save a moving average of the weights, which keeps this share of itself in a step: 0.999 (less in the first steps)",
  },
  checkpointing: {
    group: "training",
    kind: flag,
    about: "compute activations twice instead of keeping them: less memory, more time",
    fallback: false,
  },
  activations: {
    group: "training",
    kind: oneOf(ACTIVATIONS),
    about: `with --checkpointing, the type in which layers' inputs are kept: ${ACTIVATIONS.join(", ")}`,
    fallback: "f32",
  },
  seed: { group: "training", kind: whole(0), about: "the seed of all randomness", fallback: 0 },
  evalEvery: {
    group: "run",
    kind: whole(1),
    about: "steps between evaluations on the held-out examples",
    fallback: 50,
  },
  patience: {
    group: "run",
    kind: whole(1),
    about: "stop after this number of evaluations without a lower validation loss",
  },
  saveEvery: { group: "run", kind: whole(1), about: "steps between checkpoints", fallback: 100 },
  log: {
    group: "run",
    kind: listOf(METRIC_FORMATS),
    about: "files of metrics: jsonl, csv, tensorboard, or none",
    fallback: METRIC_FORMATS,
  },
  callbacks: {
    group: "run",
    kind: path("file"),
    about:
      "a JavaScript module that is told what happens: it exports onStart, onStep, onEvaluate, onEnd, or some",
  },
  out: {
    group: "run",
    kind: path("dir"),
    about: "where the adapter, its checkpoints and logs are written",
    required: true,
  },
};
