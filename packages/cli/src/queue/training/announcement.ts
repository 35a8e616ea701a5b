/** What a training announces to workers: who it is, and all that a micro-batch's gradient depends on. */
import { createHash } from "node:crypto";
import type { LossSettings } from "../../loss-settings.ts";
import type { TrainSettings } from "../../train-settings.ts";

/** The settings of a training that its workers need. */
export type SharedSettings = Pick<
  TrainSettings,
  | "quantize"
  | "stream"
  | "backend"
  | "checkpointing"
  | "activations"
  | "promptTemplate"
  | "promptColumn"
  | "completionColumn"
  | "separator"
  | "seq"
  | "pack"
  | "batch"
  | "seed"
  | "validSplit"
  | Exclude<keyof LossSettings, "teacher">
>;

const SHARED: { readonly [K in keyof Required<SharedSettings>]: true } = {
  quantize: true,
  stream: true,
  backend: true,
  checkpointing: true,
  activations: true,
  promptTemplate: true,
  promptColumn: true,
  completionColumn: true,
  separator: true,
  seq: true,
  pack: true,
  batch: true,
  seed: true,
  validSplit: true,
  loss: true,
  beta: true,
  labelSmoothing: true,
  zLoss: true,
  temperature: true,
  teacherWeight: true,
  desirableWeight: true,
  undesirableWeight: true,
  regularize: true,
};

export function sharedSettings(settings: TrainSettings): SharedSettings {
  const shared = Object.keys(SHARED).map((key) => [key, settings[key as keyof SharedSettings]]);
  return Object.fromEntries(shared) as SharedSettings;
}

/** The SHA-256 of the settings, which a worker compares with that of what it has read of them; it may have a backend of its own. */
export function settingsDigest(settings: SharedSettings): string {
  const { backend: _, ...read } = sharedSettings(settings as TrainSettings);
  return createHash("sha256").update(JSON.stringify(read)).digest("hex");
}

/** A training as it is announced. */
export interface TrainingAnnouncement {
  readonly kind: "training";
  readonly id: string;
  /** The version of the product; fields beyond it may differ in other versions. */
  readonly version: string;
  readonly host: string;
  /** The base model: a path or a name on the hub, with the commit, and its digest. */
  readonly model: string;
  readonly modelDigest: string;
  /** The model that a distillation learns from, and its digest. */
  readonly teacher?: { readonly model: string; readonly digest: string };
  readonly data: string;
  /** The fingerprint of the encoded examples. */
  readonly dataFingerprint: string;
  readonly settings: SharedSettings;
  readonly settingsDigest: string;
}

/** A job: the gradients of a micro-batch. */
export interface MicroBatchJob {
  /** The step, from 0. */
  readonly step: number;
  /** The number of the micro-batch in its step. */
  readonly place: number;
  /** The index of its batch in the training. */
  readonly index: number;
  readonly factor: number;
}

/** The names of things on the server. */
export const names = {
  queue: (id: string): string => `training-${id}`,
  job: ({ step, place }: Pick<MicroBatchJob, "step" | "place">): string => `step${step}-${place}`,
  adapter: (id: string): string => `training/${id}/adapter`,
  weights: (id: string, step: number): string => `training/${id}/weights/${step}`,
  gradients: (id: string, { step, place }: Pick<MicroBatchJob, "step" | "place">): string =>
    `training/${id}/gradients/${step}/${place}`,
} as const;

/** How long what is needed in a step is kept, at most: a training renews it by asking again. */
export const KEPT_SECONDS = 3600;
