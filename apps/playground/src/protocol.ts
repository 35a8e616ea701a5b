/** What the page and the worker that trains say to each other. The page holds no tensors, the worker no elements. */
import type { FactorName } from "tiedlora";
import type { DrawnPlan } from "./plan.ts";

export type BackendChoice = "webgpu" | "cpu";
/** "auto": the one that is faster here. */
export type BackendWish = BackendChoice | "auto";
/** Over what A and B are shared. */
export type TieScope = "all" | "none" | "pairs" | "model";

/** A method as the switches of the page say it. */
export interface MethodChoice {
  /** A preset's name, or "own". */
  readonly preset: string;
  readonly trained: readonly FactorName[];
  readonly tie: TieScope;
  readonly rank: number;
}

/** One of the runs that are trained side by side. */
export interface RunChoice {
  /** From 0 on; it also stands for the colour. */
  readonly id: number;
  readonly method: MethodChoice;
  readonly lr: number;
}

export interface Experiment {
  /** a toy task, or "text": what the visitor pasted. */
  readonly task: string;
  readonly text: string;
  readonly steps: number;
  readonly batch: number;
  readonly seed: number;
  readonly runs: readonly RunChoice[];
}

/** A linear layer of the base model, for counting and drawing. */
export interface LinearOfBase {
  readonly path: string;
  readonly in: number;
  readonly out: number;
}

export interface BaseInfo {
  readonly name: string;
  readonly parameters: number;
  readonly layers: number;
  readonly hidden: number;
  readonly vocab: number;
  readonly linears: readonly LinearOfBase[];
}

export interface Sample {
  readonly prompt: string;
  /** What the data set says; "" where nothing is known. */
  readonly right: string;
}

/** What a prompt of the visitor's own led to. */
export interface Completed {
  readonly text: string;
  /** The likeliest next tokens, with their probabilities. */
  readonly next: readonly { readonly token: string; readonly probability: number }[];
  /** Of the token that follows the prompt, [vocabulary]. */
  readonly logits: Float32Array;
}

export type Phase = "before" | "during" | "after";
export type DownloadFormat = "native" | "peft";

export type Request =
  | { readonly type: "open"; readonly backend: BackendWish }
  | { readonly type: "loadModel"; readonly files: readonly File[] }
  | { readonly type: "loadAdapter"; readonly files: readonly File[] }
  /** Takes an adapter that came from files off again. */
  | { readonly type: "unload"; readonly run: number }
  | { readonly type: "start"; readonly experiment: Experiment }
  | { readonly type: "pause" }
  | { readonly type: "resume" }
  | { readonly type: "stop" }
  | { readonly type: "tensor"; readonly run: number | null; readonly path: string }
  | { readonly type: "complete"; readonly run: number | null; readonly prompt: string }
  | { readonly type: "download"; readonly run: number; readonly format: DownloadFormat };

export type Reply =
  | {
      readonly type: "ready";
      readonly backend: BackendChoice;
      /** The device in words, and why it is this one. */
      readonly where: string;
      readonly why: string;
      readonly base: BaseInfo;
    }
  | { readonly type: "samples"; readonly samples: readonly Sample[] }
  | {
      readonly type: "step";
      readonly run: number;
      readonly step: number;
      readonly steps: number;
      readonly loss: number;
      readonly tokensPerSecond: number;
      /** Bytes in use on the device. */
      readonly memory: number;
    }
  | { readonly type: "gradients"; readonly run: number; readonly norms: Readonly<Record<string, number>> }
  | {
      readonly type: "completions";
      readonly run: number | null;
      readonly phase: Phase;
      readonly texts: readonly string[];
    }
  /** All that is going to be said of this training has been. */
  | { readonly type: "said" }
  | ({ readonly type: "completed"; readonly run: number | null } & Completed)
  | { readonly type: "state"; readonly state: "idle" | "training" | "paused" | "done" | "stopped" }
  | {
      readonly type: "adapterLoaded";
      readonly run: number;
      /** Method, rank, and where it came from. */
      readonly label: string;
      readonly trainable: number;
      readonly plan: DrawnPlan;
    }
  /** The loss of an adapter that came from files, on the first batch of the others' training. */
  | { readonly type: "measured"; readonly run: number; readonly loss: number }
  | {
      readonly type: "tensor";
      /** Null: of the base model. */
      readonly run: number | null;
      readonly path: string;
      readonly shape: readonly number[];
      /** Row-major; of a large tensor every so-many-th row and column. */
      readonly rows: number;
      readonly columns: number;
      readonly values: Float32Array;
    }
  | { readonly type: "files"; readonly name: string; readonly zip: Uint8Array }
  /** What went wrong and what the visitor can do. */
  | { readonly type: "problem"; readonly title: string; readonly message: string; readonly fatal: boolean };
