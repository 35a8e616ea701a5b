/**
 * Checkpoints: all that a training run needs to go on as if it had never stopped. Each is a directory of its own that
 * appears whole, by one rename, or not at all; it is also an adapter that can be loaded.
 */
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  decodeF32,
  encodeTensor,
  FormatError,
  isRecord,
  openSafetensors,
  type optim,
  parseJsonObject,
  writeSafetensors,
} from "@tiedlora/core";
import { fileSource, syncDirectory, writeFilesAtomic } from "@tiedlora/core/node";
import type { Adapter } from "../adapter.ts";
import { nativeFiles, TENSORS_FILE, type Provenance } from "../files/native.ts";
import { writeError } from "./writing.ts";

/** What a run is at, beside its tensors. The random numbers and the place in the data follow from seed and step. */
export interface RunState {
  /** Steps done. */
  readonly step: number;
  /** Tokens seen. */
  readonly tokens: number;
  /** The lowest loss on the validation examples so far, and its step. */
  readonly best: { readonly step: number; readonly loss: number } | null;
  /** Evaluations since then. */
  readonly sinceBest: number;
  /** Whether it has ended: all steps are done, or it was stopped early. */
  readonly finished: boolean;
  /** Of the training examples: see Dataset. */
  readonly data: string;
}

const OPTIMIZER_FILE = "optimizer.safetensors";
const STATE_FILE = "state.json";
const NAME = /^step-(\d{8})$/;

export function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** The steps that there are checkpoints of, ascending. A directory that does not exist has none. */
export async function checkpointSteps(directory: string): Promise<number[]> {
  const names = await readdir(directory).catch(() => []);
  return names.flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number).sort((a, b) => a - b); // prettier-ignore
}

/** Writes a checkpoint. Whatever happens meanwhile, the earlier ones stay as they are. */
export async function saveCheckpoint(
  directory: string,
  { adapter, optimizer }: { readonly adapter: Adapter; readonly optimizer: optim.Optimizer },
  state: RunState,
  provenance: Provenance,
): Promise<void> {
  const name = checkpointName(state.step);
  if ((await checkpointSteps(directory)).includes(state.step)) return; // written before the run was cut off: the same bits
  const temporary = join(directory, `.${name}.tmp`);
  try {
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    const { step, tensors } = await optimizer.state();
    const content = [...tensors].map(([key, { shape, values }]) => ({
      name: key,
      dtype: "F32" as const,
      shape,
      bytes: () => Promise.resolve(encodeTensor("f32", values)),
    }));
    await writeFilesAtomic(temporary, [
      ...nativeFiles(adapter, provenance),
      [OPTIMIZER_FILE, writeSafetensors(content, [["step", String(step)]])],
      [STATE_FILE, `${JSON.stringify(state, null, 2)}\n`],
    ]);
    await rename(temporary, join(directory, name));
    await syncDirectory(directory);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw writeError(directory, error);
  }
}

/** Removes all checkpoints but the last and those of `keep`, and what a crash has left behind. */
export async function pruneCheckpoints(directory: string, keep: readonly number[]): Promise<void> {
  const steps = await checkpointSteps(directory);
  const superfluous = steps.slice(0, -1).filter((step) => !keep.includes(step));
  for (const step of superfluous) await removeCheckpoint(directory, checkpointName(step));
  for (const name of await readdir(directory).catch(() => [])) {
    if (/^\.step-\d{8}\.(tmp|old)$/.test(name))
      await rm(join(directory, name), { recursive: true, force: true });
  }
}

/** Takes the name away first: a crash in between leaves no checkpoint that lacks files. */
async function removeCheckpoint(directory: string, name: string): Promise<void> {
  const old = join(directory, `.${name}.old`);
  await rm(old, { recursive: true, force: true });
  await rename(join(directory, name), old);
  await rm(old, { recursive: true, force: true });
}

/** The state of a checkpoint. */
export async function readState(directory: string, step: number): Promise<RunState> {
  const path = join(directory, checkpointName(step), STATE_FILE);
  const state = parseJsonObject(await readFile(path, "utf8"), path);
  const { best } = state;
  const valid =
    state["step"] === step &&
    typeof state["tokens"] === "number" &&
    typeof state["sinceBest"] === "number" &&
    typeof state["finished"] === "boolean" &&
    typeof state["data"] === "string" &&
    (best === null ||
      (isRecord(best) && typeof best["step"] === "number" && typeof best["loss"] === "number"));
  if (!valid)
    throw new FormatError({
      file: path,
      found: JSON.stringify(state).slice(0, 80),
      expected: "the state of a run",
    });
  return state as unknown as RunState;
}

/** Sets adapter and optimizer to what they were. The adapter must be of the same method, on the same model. */
export async function restoreCheckpoint(
  directory: string,
  step: number,
  { adapter, optimizer }: { readonly adapter: Adapter; readonly optimizer: optim.Optimizer },
): Promise<void> {
  const path = join(directory, checkpointName(step));
  await restoreAdapter(join(path, TENSORS_FILE), adapter);
  const source = await fileSource(join(path, OPTIMIZER_FILE));
  try {
    const file = await openSafetensors(source);
    const tensors = new Map<string, optim.StateValues>();
    for (const [name, { shape }] of file.entries)
      tensors.set(name, { shape, values: decodeF32(await file.read(name), file.name, name) });
    optimizer.load({ step, tensors });
  } finally {
    await source.close?.();
  }
}

/** Gives an adapter the values of a checkpoint's; what is trained, tied and dropped out stays as it is declared. */
export async function restoreAdapter(path: string, adapter: Adapter): Promise<void> {
  const source = await fileSource(path);
  try {
    const file = await openSafetensors(source);
    const parameters = adapter.stateDict();
    const differs = [...new Set([...file.entries.keys(), ...parameters.keys()])].find(
      (name) => file.entries.get(name)?.shape.join() !== parameters.get(name)?.shape.join(),
    );
    if (differs !== undefined) {
      const show = (shape: readonly number[] | undefined): string =>
        shape ? `shape [${shape.join(", ")}]` : "nothing";
      throw new FormatError({
        file: path,
        tensor: differs,
        found: show(file.entries.get(differs)?.shape),
        expected: show(parameters.get(differs)?.shape),
        hint: "The run was started with another model, method or rank.",
      });
    }
    for (const [name, parameter] of parameters) parameter.set(decodeF32(await file.read(name), path, name));
  } finally {
    await source.close?.();
  }
}
