/** What the processes of a sweep say to each other. */
import type { RunConfig, RunResult } from "../../sweep/config.ts";

/** From the sweep to a worker: do this. */
export interface Job {
  readonly config: RunConfig;
  readonly backend: "cpu" | "webgpu" | "reference";
  /** Threads of the CPU backend. */
  readonly threads: number;
}

/** From a worker to the sweep. */
export type Message =
  | { readonly type: "step"; readonly step: number; readonly loss: number }
  | { readonly type: "done"; readonly result: RunResult }
  | { readonly type: "failed"; readonly message: string };
