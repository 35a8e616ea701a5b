/** The messages between the page and the worker that trains. The page has no tensors, and the worker no DOM elements. */
import type { FactorName } from "tiedlora";
import type { DrawnPlan } from "./plan.ts";

export type BackendChoice = "webgpu" | "cpu";
/** "auto" stands for the backend that is faster here. */
export type BackendWish = BackendChoice | "auto";
/** The modules that share A and B. */
export type TieScope = "all" | "none" | "pairs" | "model";

/** A method as the switches of the page describe it. */
export interface MethodChoice {
  /** A preset's name, or "own". */
  readonly preset: string;
  readonly trained: readonly FactorName[];
  readonly tie: TieScope;
  readonly rank: number;
}

/** One of the runs that are trained side by side. */
export interface RunChoice {
  /** From 0 up; it also determines the color. */
  readonly id: number;
  readonly method: MethodChoice;
  readonly lr: number;
}

export interface Experiment {
  /** The name of a toy task, or "text" for text that the visitor has pasted. */
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
  /** The right completion according to the data set; "" if none is known. */
  readonly right: string;
}

/** The completion of a prompt that the visitor has entered. */
export interface Completed {
  readonly text: string;
  /** The most likely next tokens, with their probabilities. */
  readonly next: readonly { readonly token: string; readonly probability: number }[];
  /** The logits of the token that follows the prompt, [vocabulary]. */
  readonly logits: Float32Array;
}

export type Phase = "before" | "during" | "after";
export type DownloadFormat = "native" | "peft";

export type Request =
  | { readonly type: "open"; readonly backend: BackendWish }
  | { readonly type: "loadModel"; readonly files: readonly File[] }
  /** Loads a model by its name, "owner/name" or "owner/name@revision", from the hub at `endpoint`; "" is no token. */
  | {
      readonly type: "loadFromHub";
      readonly model: string;
      readonly token: string;
      readonly endpoint: string;
    }
  | { readonly type: "cancelHub" }
  /** Deletes what the page's storage keeps of a model from a hub. */
  | { readonly type: "forgetHub"; readonly model: string }
  | { readonly type: "loadAdapter"; readonly files: readonly File[] }
  /** Removes an adapter that was loaded from files. */
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
      /** A description of the device; `why` says why it was chosen. */
      readonly where: string;
      readonly why: string;
      readonly base: BaseInfo;
    }
  /** How far the file of a model is that is loaded from a hub, in bytes; which one it is, from 1, and of how many. */
  | {
      readonly type: "hubProgress";
      readonly file: string;
      readonly loaded: number;
      readonly size: number;
      readonly index: number;
      readonly files: number;
    }
  | { readonly type: "hubNote"; readonly text: string }
  /** No model is being loaded from a hub any more. A failure is also sent as a problem. */
  | { readonly type: "hubEnded"; readonly how: "loaded" | "canceled" | "failed" }
  | { readonly type: "samples"; readonly samples: readonly Sample[] }
  | {
      readonly type: "step";
      readonly run: number;
      readonly step: number;
      readonly steps: number;
      readonly loss: number;
      readonly tokensPerSecond: number;
      /** The number of bytes in use on the device. */
      readonly memory: number;
    }
  | { readonly type: "gradients"; readonly run: number; readonly norms: Readonly<Record<string, number>> }
  | {
      readonly type: "completions";
      readonly run: number | null;
      readonly phase: Phase;
      readonly texts: readonly string[];
    }
  /** All replies about the completions of this training have been sent. */
  | { readonly type: "said" }
  | ({ readonly type: "completed"; readonly run: number | null } & Completed)
  | { readonly type: "state"; readonly state: "idle" | "training" | "paused" | "done" | "stopped" }
  | {
      readonly type: "adapterLoaded";
      readonly run: number;
      /** Its method, rank, and source. */
      readonly label: string;
      readonly trainable: number;
      readonly plan: DrawnPlan;
    }
  /** The loss of an adapter from files, on the first batch of the training. */
  | { readonly type: "measured"; readonly run: number; readonly loss: number }
  | {
      readonly type: "tensor";
      /** Null if the tensor belongs to the base model. */
      readonly run: number | null;
      readonly path: string;
      readonly shape: readonly number[];
      /** The size of `values`, which are row-major; of a large tensor, evenly spaced rows and columns are taken. */
      readonly rows: number;
      readonly columns: number;
      readonly values: Float32Array;
    }
  | { readonly type: "files"; readonly name: string; readonly zip: Uint8Array }
  /** An error, with what the visitor can do about it. */
  | { readonly type: "problem"; readonly title: string; readonly message: string; readonly fatal: boolean };
