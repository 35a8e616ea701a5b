/** The settings of a run, from flags, a file, or the run to resume: each run saves its settings as run.yaml. */
import { dirname, join } from "node:path";
import { parseHubName } from "@tiedlora/models/node";
import { RUN_FILE, runFileKind } from "tiedlora/internal/node";
import { checkRunFile } from "./run/run-folder.ts";
import { entries, nameOf, readSettings, resolveSettings, UsageError } from "./settings.ts";
import { TRAIN_SETTINGS, type TrainSettings } from "./train-settings.ts";

export interface RunFlags extends Record<string, unknown> {
  readonly config?: string;
  readonly resume?: true;
  readonly restart?: true;
}

/** Settings that may differ when a run is resumed: they change nothing about the steps already done. */
const FREE: readonly (keyof TrainSettings)[] = [
  "out",
  "steps",
  "epochs",
  "patience",
  "saveEvery",
  "log",
  "callbacks",
  "backend",
];

export interface RunSettings {
  readonly settings: TrainSettings;
  /** The keys of settings that were given, or that come from the resumed run; all other settings are defaults. */
  readonly given: ReadonlySet<keyof TrainSettings>;
  readonly resume: boolean;
}

/**
 * The settings of `train`. With `--resume`, they are the settings of the run in `--out`, and a different value is an error
 * (except for `FREE` settings); if there is no run yet, a new one begins.
 */
export async function runSettings(flags: RunFlags): Promise<RunSettings> {
  const out = flags["out"];
  if (flags.resume && flags.restart)
    throw new UsageError("--resume goes on with a run, and --restart throws it away: give one of them");
  const file = flags.resume && typeof out === "string" ? join(out, RUN_FILE) : null;
  if (file === null || !(await checkRunFile(dirname(file)))) {
    await checkWhole(flags.config);
    const settings = await resolveSettings(TRAIN_SETTINGS, flags, flags.config).catch((error: unknown) => {
      if (file === null || !(error instanceof UsageError)) throw error;
      throw new UsageError(`--resume: there is no run in ${String(out)}, and to begin one, ${error.message}`);
    });
    checkTogether(settings);
    const again = flags.resume && file === null ? await runSettings({ ...flags, out: settings.out }) : null;
    const given = { ...(flags.config && (await readSettings(TRAIN_SETTINGS, flags.config))), ...definedOf(flags) }; // prettier-ignore
    return again ?? { settings, given: keysOf(given), resume: flags.resume === true };
  }
  const saved = await readSettings(TRAIN_SETTINGS, file);
  const fromFile = flags.config === undefined ? {} : await readSettings(TRAIN_SETTINGS, flags.config);
  const given: Record<string, unknown> = { ...fromFile, ...definedOf(flags) };
  for (const key of ["model", "initFrom"] as const)
    // the saved name has the commit
    if (sameOnHub(String(given[key]), String(saved[key]))) delete given[key];
  for (const [key] of entries(TRAIN_SETTINGS)) {
    if (given[key] === undefined || FREE.includes(key) || same(key, given[key], saved[key])) continue;
    throw new UsageError(
      `--${nameOf(key)} ${shown(given[key])}: the run in ${shown(out)} was started with ${shown(saved[key])}; leave it out, or ` +
        `start a new run in another directory`,
    );
  }
  if (given["steps"] !== undefined) given["epochs"] = undefined;
  const all = { ...saved, ...given };
  const settings = await resolveSettings(TRAIN_SETTINGS, all, undefined);
  return { settings, given: keysOf(all), resume: true };
}

/** Throws UsageError if `config` is a file of settings that a run has written, and it is cut off. */
async function checkWhole(config: string | undefined): Promise<void> {
  if (config !== undefined && (await runFileKind(config)) === "cut off")
    throw new UsageError(`${config} is cut off: its last line is missing`);
}

function keysOf(given: Readonly<Record<string, unknown>>): ReadonlySet<keyof TrainSettings> {
  return new Set(entries(TRAIN_SETTINGS).flatMap(([key]) => (given[key] === undefined ? [] : [key])));
}

function definedOf(flags: RunFlags): Record<string, unknown> {
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
}

/** Whether a given value equals the saved one. Paths are saved as absolute ones, but may be given as relative ones. */
function same(key: string, given: unknown, saved: unknown): boolean {
  const isPath =
    key === "callbacks" ||
    key === "model" ||
    key === "data" ||
    key === "valid" ||
    key === "initFrom" ||
    key === "teacher";
  if (isPath && typeof given === "string" && typeof saved === "string")
    return join(process.cwd(), given) === saved || given === saved;
  return shown(given) === shown(saved);
}

/** Whether a name of the hub means the saved one, which has its commit. */
function sameOnHub(given: string, saved: string): boolean {
  const [name, before] = [parseHubName(given), parseHubName(saved)];
  return name !== null && name.id === before?.id && (!name.pinned || name.revision === before.revision);
}

function shown(value: unknown): string {
  if (value === undefined) return "none";
  return typeof value === "string" ? value : value instanceof RegExp ? String(value) : JSON.stringify(value);
}

function checkTogether({ steps, epochs, activations, checkpointing }: TrainSettings): void {
  if (steps !== undefined && epochs !== undefined)
    throw new UsageError("--steps and --epochs are both given; give one of them");
  if (activations !== "f32" && !checkpointing)
    throw new UsageError(
      `--activations ${activations}: without --checkpointing all intermediate values are kept in f32; give both, or neither`,
    );
}
