/** The settings, besides task, method, rank and seed, in which the runs of a sweep can differ. */
import type { RunConfig } from "../sweep/config.ts";

/** The names of these settings in a run's config. */
export const VARIED = [
  "lr",
  "steps",
  "batch",
  "dropout",
  "target",
  "warmup",
  "weightDecay",
  "loraPlus",
  "optimizer",
  "beta1",
  "beta2",
  "loss",
  "beta",
  "labelSmoothing",
  "zLoss",
  "temperature",
  "teacherWeight",
  "init",
  "ema",
] as const;
export type Varied = (typeof VARIED)[number];

/** The values of some of them. */
export type Settings = Partial<Pick<RunConfig, Varied>>;

/** The name of a setting in a sweep's file: "weight-decay". */
export const settingName = (key: Varied): string =>
  key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
