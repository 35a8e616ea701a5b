/** What a sweep announces to workers, and the names of its things on the server. */
import type { Outcome, RunConfig } from "@tiedlora/experiments";
import type { QuantizeKind } from "@tiedlora/models";
import type { BackendName } from "../../device.ts";

export interface SweepAnnouncement {
  readonly kind: "sweep";
  /** The same for the same folder of results, so that the command that is started again finds what workers have done meanwhile. */
  readonly id: string;
  /** The version of the product; fields beyond it may differ in other versions. */
  readonly version: string;
  readonly host: string;
  /** The sweep's own name. */
  readonly name: string;
  /** The base model as the sweep's file names it, and its digest. */
  readonly model: string;
  readonly modelDigest: string;
  /** The model that distillations learn from, and its digest. */
  readonly teacher?: { readonly model: string; readonly digest: string };
  /** The form in which weights are quantized while they are loaded, if they are. */
  readonly quantize?: QuantizeKind;
  /** The folder of each task's files, with its digest. */
  readonly data: readonly { readonly path: string; readonly digest: string }[];
  readonly backend: BackendName;
  /** The runs with the largest steps, one for each task: whether these fit into memory depends on the machine. */
  readonly largest: readonly RunConfig[];
}

/** A job: a run. Its id is the run's. */
export interface RunJob {
  /** The config as JSON: a server may change the order of an object's keys, on which a run's id depends. */
  readonly config: string;
}

/** The config in a job. */
export const configOf = ({ config }: RunJob): RunConfig => JSON.parse(config) as RunConfig;

/** What became of a run. */
export type RunEnding = { readonly outcome: Outcome } | { readonly failed: string };

export const names = {
  queue: (id: string): string => `sweep-${id}`,
  ending: (id: string, run: string): string => `sweep/${id}/ending/${run}`,
  saved: (id: string, whole: string): string => `sweep/${id}/saved/${whole}`,
} as const;

/** How long results and saved states wait on the server. */
export const KEPT_SECONDS: number = 7 * 24 * 3600;
