/** The messages between the processes of a sweep. */
import type { Outcome, RunConfig } from "../../sweep/config.ts";

/** From the sweep to a worker: a run to perform. */
export interface Job {
  readonly config: RunConfig;
  readonly backend: "cpu" | "webgpu" | "reference";
  /** Threads of the CPU backend. */
  readonly threads: number;
  /** Whether the CPU backend uses V8's 256-bit vectors (default: whether the process was started with them). */
  readonly revectorize?: boolean;
}

/** From a worker to the sweep: the progress or the outcome of its run. */
export type Message =
  | { readonly type: "step"; readonly step: number; readonly loss: number }
  | { readonly type: "done"; readonly result: Outcome }
  | { readonly type: "failed"; readonly message: string };
