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
  /** Whether the layers' weights are read from their files as they are needed. Default: false. */
  readonly stream?: boolean;
  /** The file to which the run's state is saved, and from which it goes on; null: there is none. */
  readonly checkpoint: string | null;
}

/** From the sweep to a worker: perform a run, or save the state of the one that is being performed and end it. */
export type Order = { readonly type: "run"; readonly job: Job } | { readonly type: "stop" };

/** From a worker to the sweep: the progress or the outcome of its run. */
export type Message =
  | { readonly type: "step"; readonly step: number; readonly loss: number }
  | { readonly type: "saved"; readonly step: number }
  | { readonly type: "done"; readonly result: Outcome }
  | { readonly type: "stopped" }
  | { readonly type: "failed"; readonly message: string };
