/**
 * Checkpoints: everything that a training run needs to continue as if it had never stopped. Each checkpoint is a directory that
 * appears whole, by one rename, or not at all, and holds the digests of its files. It can also be loaded as an adapter.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  describeValue,
  decodeF32,
  encodeTensor,
  FormatError,
  isRecord,
  openSafetensors,
  type Parameter,
  parseJsonObject,
  type TensorFile,
  writeSafetensors,
} from "@tiedlora/core";
import type * as optim from "@tiedlora/nn/optim";
import { fileSource, syncDirectory, writeFilesAtomic } from "@tiedlora/core/node";
import type { Adapter } from "../adapter/adapter.ts";
import {
  CONFIG_FILE,
  nativeFiles,
  type Provenance,
  readParameter,
  storedParameters,
  TENSORS_FILE,
} from "../files/native.ts";
import type { OutputFile } from "../output-file.ts";
import { DivergedError } from "../train/diverged.ts";
import { type FitState, withAverages } from "../train/fit.ts";
import { findDamage, withDigests } from "./digests.ts";
import { writeError } from "./writing.ts";

/** The state of a run besides its tensors. The random numbers and the position in the data follow from seed and step. */
export interface RunState extends FitState {
  /** The fingerprint of the training examples: see {@link Dataset.fingerprint}. */
  readonly data: string;
}

const OPTIMIZER_FILE = "optimizer.safetensors";
const STATE_FILE = "state.json";
/** The adapter's values that training goes on from, where the adapter's own file has their moving averages. */
const TRAINING_FILE = "training.safetensors";

/** What a checkpoint saves: what is trained, and the moving averages of it, if there are some. */
interface Trained {
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  readonly average?: optim.EMA | undefined;
}

const NAME = /^step-(\d{8})$/;

export function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** The steps for which checkpoints exist, ascending; empty if the directory does not exist. */
export async function checkpointSteps(directory: string): Promise<number[]> {
  const names = await readdir(directory).catch(() => []);
  return names.flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number).sort((a, b) => a - b); // prettier-ignore
}

/**
 * Writes a checkpoint. Earlier checkpoints stay intact, even after a crash. Throws DivergedError if a value of the adapter or the
 * optimizer is not finite, since training could not continue from it.
 */
export async function saveCheckpoint(
  directory: string,
  { adapter, optimizer, average }: Trained,
  state: RunState,
  provenance: Provenance,
): Promise<void> {
  const name = checkpointName(state.step);
  const temporary = join(directory, `.${name}.tmp`);
  const { step, tensors } = await optimizer.state();
  await checkFinite(state.step, adapter, tensors);
  try {
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    const content = [...tensors].map(([key, { shape, values }]) => ({
      name: key,
      dtype: "F32" as const,
      shape,
      bytes: () => Promise.resolve(encodeTensor("f32", values)),
    }));
    const trained = average === undefined ? [] : await trainedFile(adapter);
    const files: OutputFile[] = [
      ...nativeFiles(adapter, provenance),
      ...trained,
      [OPTIMIZER_FILE, writeSafetensors(content, [["step", String(step)]])],
      [STATE_FILE, `${JSON.stringify(state, null, 2)}\n`],
    ];
    await withAverages(average, () => writeFilesAtomic(temporary, withDigests(files)));
    await removeCheckpoint(directory, name); // a damaged checkpoint of the same step, if there is one
    await rename(temporary, join(directory, name));
    await syncDirectory(directory);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw writeError(directory, error);
  }
}

/** The file of the adapter's values as they are now. */
async function trainedFile(adapter: Adapter): Promise<OutputFile[]> {
  const [[, content]] = nativeFiles(adapter) as [OutputFile];
  const pieces: Uint8Array[] = [];
  for await (const piece of content as AsyncIterable<Uint8Array>) pieces.push(piece.slice());
  return [[TRAINING_FILE, Buffer.concat(pieces)]];
}

async function checkFinite(
  step: number,
  adapter: Adapter,
  tensors: optim.OptimizerState["tensors"],
): Promise<void> {
  const parameters = [...adapter.stateDict()];
  for (const [path, parameter] of parameters) {
    if (!allFinite(await parameter.data())) throw DivergedError.after(step, path);
  }
  for (const [key, { values }] of tensors) {
    if (!allFinite(values)) throw DivergedError.after(step, `the optimizer's state ${key}`);
  }
}

function allFinite(values: ArrayLike<number>): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}

/** Removes all checkpoints except those of the steps in `keep`, and the remains of unfinished ones. */
export async function pruneCheckpoints(directory: string, keep: readonly number[]): Promise<void> {
  for (const step of await checkpointSteps(directory))
    if (!keep.includes(step)) await removeCheckpoint(directory, checkpointName(step));
  await removeUnfinished(directory);
}

/** Removes the remains of checkpoints that were being written or removed at a crash. */
export async function removeUnfinished(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    if (/^\.step-\d{8}\.(tmp|old)$/.test(name))
      await rm(join(directory, name), { recursive: true, force: true });
  }
}

/** Renames the checkpoint before deleting it, so that a crash in between leaves no checkpoint that lacks files. */
async function removeCheckpoint(directory: string, name: string): Promise<void> {
  const old = join(directory, `.${name}.old`);
  await rm(old, { recursive: true, force: true });
  const found = await rename(join(directory, name), old).then(() => true, absent);
  if (found) await rm(old, { recursive: true, force: true });
}

function absent(error: NodeJS.ErrnoException): false {
  if (error.code === "ENOENT") return false;
  throw error;
}

/** Describes the damage to a checkpoint; null if it is as it was written. */
export function damageOf(directory: string, step: number): Promise<string | null> {
  return findDamage(join(directory, checkpointName(step)), [TENSORS_FILE, CONFIG_FILE, OPTIMIZER_FILE, STATE_FILE]); // prettier-ignore
}

/** Reads the state of a checkpoint. Throws FormatError if it is not the state of that step. */
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
      found: describeValue(state),
      expected: "the state of a run",
    });
  return state as unknown as RunState;
}

/**
 * Sets adapter and optimizer to the values of a checkpoint. The adapter must be of the same method, on the same model; otherwise,
 * or if the files do not fit each other, it throws FormatError, and adapter and optimizer keep their values.
 */
export async function restoreCheckpoint(
  directory: string,
  step: number,
  { adapter, optimizer, average }: Trained,
): Promise<void> {
  const path = join(directory, checkpointName(step));
  const values = await readAdapter(join(path, TENSORS_FILE), adapter);
  const trained = await readTrained(path, adapter, average);
  const source = await fileSource(join(path, OPTIMIZER_FILE));
  try {
    const file = await openSafetensors(source);
    const tensors = new Map<string, optim.StateValues>();
    for (const [name, { shape }] of file.entries)
      tensors.set(name, { shape, values: decodeF32(await file.read(name), file.name, name) });
    await checkOptimizer(file, step, tensors, { adapter, optimizer }, await trainedIn(path));
    optimizer.load({ step, tensors }); // checks again, and changes nothing if it throws
    for (const [parameter, data] of values) parameter.set(data);
    if (trained === null) return;
    average!.reset(step);
    for (const [parameter, data] of trained) parameter.set(data);
  } finally {
    await source.close?.();
  }
}

/** The values that training goes on from; null if they are those of the adapter. Throws FormatError if they do not fit `average`. */
async function readTrained(
  path: string,
  adapter: Adapter,
  average: optim.EMA | undefined,
): Promise<Map<Parameter, Float32Array | Int32Array> | null> {
  const file = join(path, TRAINING_FILE);
  const has = existsSync(file);
  if (has !== (average !== undefined))
    throw new FormatError({
      file: path,
      found: has ? "moving averages of the weights" : "no moving averages of the weights",
      expected: has ? "none" : "some",
      hint: `The run was started with${has ? "" : "out"} moving averages.`,
    });
  return has ? readAdapter(file, adapter) : null;
}

/** The paths of the parameters that were trained when a checkpoint was written, unchecked. */
async function trainedIn(path: string): Promise<unknown> {
  const file = join(path, CONFIG_FILE);
  return parseJsonObject(await readFile(file, "utf8"), file)["trained"];
}

/** Throws FormatError unless the state is of this step, finite, and has values for each parameter that was trained. */
async function checkOptimizer(
  file: TensorFile,
  step: number,
  tensors: optim.OptimizerState["tensors"],
  { adapter, optimizer }: { readonly adapter: Adapter; readonly optimizer: optim.Optimizer },
  trained: unknown,
): Promise<void> {
  const fail = (found: string, expected: string, tensor?: string): never => {
    throw new FormatError({ file: file.name, found, expected, ...(tensor !== undefined && { tensor }) });
  };
  const written = file.metadata.get("step");
  if (written !== String(step)) fail(`the optimizer's state after step ${written ?? "(none)"}`, `that after step ${step}`); // prettier-ignore
  for (const [key, { values }] of tensors) {
    if (!allFinite(values)) fail("values that are not finite", "the optimizer's state", key);
  }
  if (tensors.size === 0) return; // an optimizer without state, such as plain SGD
  const having = new Set([...tensors.keys()].map((key) => Number(/\d+$/.exec(key)?.[0])));
  for (const [path, parameter] of adapter.stateDict()) {
    const expected = step > 0 && Array.isArray(trained) && trained.includes(path);
    if (expected && !having.has(optimizer.parameters.indexOf(parameter)))
      fail(`nothing of ${path}`, "the optimizer's state of every parameter that is trained");
  }
}

/**
 * Sets the parameters of an adapter to the values in a file. Which of them are trained, how they are tied and the dropout stay as
 * declared. Throws FormatError, before any change, if names or shapes differ.
 */
export async function restoreAdapter(path: string, adapter: Adapter): Promise<void> {
  for (const [parameter, data] of await readAdapter(path, adapter)) parameter.set(data);
}

/** The values in a file for each parameter of an adapter. Throws FormatError if names or shapes differ. */
async function readAdapter(
  path: string,
  adapter: Adapter,
): Promise<Map<Parameter, Float32Array | Int32Array>> {
  const source = await fileSource(path);
  try {
    const file = await openSafetensors(source);
    const parameters = storedParameters(adapter);
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
    const values = new Map<Parameter, Float32Array | Int32Array>();
    for (const [name, parameter] of parameters)
      values.set(parameter, await readParameter(file, name, parameter));
    return values;
  } finally {
    await source.close?.();
  }
}
