/**
 * The state of a run that has not ended, as one file: what it needs to go on as if it had never stopped, and to report its whole
 * curve at the end. Random numbers and the position in the data follow from seed and step.
 */
import {
  bytesSource,
  decodeF32,
  encodeTensor,
  FormatError,
  isRecord,
  openSafetensors,
  parseJsonObject,
  serialize,
  type TensorFile,
  type TypedArray,
} from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type * as optim from "@tiedlora/nn/optim";
import type { Adapter, FitState } from "tiedlora";
import type { Point } from "./config.ts";

/** Where the state of one run is kept. */
export interface SavedRun {
  /** The name of the place, for messages. */
  readonly name: string;
  /** The state that was written last; null if there is none. */
  read(): Promise<Uint8Array | null>;
  /** Replaces the state by that after `step`, at once or not at all. */
  write(bytes: Uint8Array, step: number): Promise<void>;
  /** Seconds of training after which the state is written again. */
  readonly everySeconds: number;
}

/** How far a run has come. */
export interface Progress {
  readonly state: FitState;
  /** The loss of each step. */
  readonly losses: readonly number[];
  /** The validation losses. */
  readonly points: readonly Point[];
  /** The time of training so far. */
  readonly seconds: number;
}

/** What is trained. */
export interface Trainee {
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
  /** Moving averages of what is trained. */
  readonly average?: optim.EMA | undefined;
}

/** Writes the state of a run. `id` is the name of the whole run, which is checked when the state is read. */
export async function encodeProgress(
  id: string,
  { state, ...rest }: Progress,
  { adapter, optimizer, average }: Trainee,
): Promise<Uint8Array> {
  const tensors = new Map<string, { shape: readonly number[]; values: TypedArray }>();
  for (const [path, parameter] of adapter.stateDict()) {
    tensors.set(`adapter.${path}`, { shape: parameter.shape, values: await parameter.data() });
    const best = state.best?.values?.get(path);
    if (best !== undefined) tensors.set(`best.${path}`, { shape: parameter.shape, values: best });
  }
  for (const [path, parameter] of averaged(adapter, average))
    tensors.set(`average.${path}`, { shape: parameter.shape, values: await parameter.data() });
  for (const [key, tensor] of (await optimizer.state()).tensors) tensors.set(`optimizer.${key}`, tensor);
  const best = state.best === null ? null : { step: state.best.step, loss: state.best.loss };
  const metadata = { id, state: JSON.stringify({ ...rest, state: { ...state, best } }) };
  return serialize(
    [...tensors].map(([name, { shape, values }]) => ({
      name,
      dtype: "F32" as const,
      shape,
      bytes: () => Promise.resolve(encodeTensor("f32", Float32Array.from(values))),
    })),
    Object.entries(metadata),
  );
}

/**
 * Reads the state of the run `id`; null if it is further than `last`. Otherwise sets adapter and optimizer to its values.
 * Throws FormatError, before any change, if it is not the state of this run.
 */
export async function restoreProgress(
  bytes: Uint8Array,
  { name, id, last }: { readonly name: string; readonly id: string; readonly last: number },
  { adapter, optimizer, average }: Trainee,
): Promise<Progress | null> {
  const file = await openSafetensors(bytesSource(bytes, name));
  const fail = wrongFile(name);
  if (file.metadata.get("id") !== id)
    fail(`the state of ${file.metadata.get("id") ?? "no run"}`, `that of ${id}`);
  const { state, ...rest } = checked(parseJsonObject(file.metadata.get("state") ?? "", name), fail);
  if (state.step > last) return null;
  const valuesOf = (prefix: string): Promise<Map<string, Float32Array>> => readAll(file, prefix);
  const [values, best, averages, moments] = [
    await valuesOf("adapter."),
    await valuesOf("best."),
    await valuesOf("average."),
    await valuesOf("optimizer."),
  ];
  for (const [path, { size }] of adapter.stateDict())
    for (const of of state.best === null ? [values] : [values, best])
      if (of.get(path)?.length !== size) fail(`${of.get(path)?.length ?? "no"} values of ${path}`, `${size}`);
  for (const [path, { size }] of averaged(adapter, average))
    if (averages.get(path)?.length !== size)
      fail(`${averages.get(path)?.length ?? "no"} averages of ${path}`, `${size}`);
  const shapeOf = (key: string): readonly number[] => file.entries.get(`optimizer.${key}`)!.shape;
  const tensors = new Map(
    [...moments].map(([key, all]) => [key, { shape: shapeOf(key), values: all }] as const),
  );
  optimizer.load({ step: state.step, tensors }); // checks, and changes nothing if it throws
  const { drawn } = adapter;
  for (const [path, parameter] of adapter.stateDict()) if (!drawn.has(path)) parameter.set(values.get(path)!);
  average?.reset(state.step);
  for (const [path, parameter] of averaged(adapter, average)) parameter.set(averages.get(path)!);
  return { ...rest, state: { ...state, best: state.best && { ...state.best, values: best } } };
}

/** The averages of an adapter's parameters, by the paths of these. */
function averaged(adapter: Adapter, average: optim.EMA | undefined): [path: string, average: nn.Parameter][] {
  if (average === undefined) return [];
  const has = new Set(average.parameters);
  return [...adapter.stateDict()].flatMap(([path, parameter]) =>
    has.has(parameter) ? [[path, average.average(parameter)]] : [],
  );
}

const wrongFile =
  (file: string) =>
  (found: string, expected: string): never => {
    const hint = "The file is damaged, or of another version: delete it, and the run begins anew.";
    throw new FormatError({ file, found, expected, hint });
  };

async function readAll(file: TensorFile, prefix: string): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const name of file.entries.keys())
    if (name.startsWith(prefix))
      found.set(name.slice(prefix.length), decodeF32(await file.read(name), file.name, name));
  return found;
}

/** The progress that a file describes. */
function checked(given: Readonly<Record<string, unknown>>, fail: ReturnType<typeof wrongFile>): Progress {
  const { state, losses, points, seconds } = given;
  const valid =
    isRecord(state) &&
    [state["step"], state["tokens"], state["sinceBest"]].every(
      (n) => Number.isSafeInteger(n) && Number(n) >= 0,
    ) &&
    (state["best"] === null || (isRecord(state["best"]) && isNumbers(Object.values(state["best"])))) &&
    isNumbers(losses) &&
    losses.length === state["step"] &&
    Array.isArray(points) &&
    points.every((point) => isNumbers(point) && point.length === 2) &&
    typeof seconds === "number";
  if (!valid) fail("something else", "the progress of a run");
  return given as unknown as Progress;
}

const isNumbers = (given: unknown): given is number[] =>
  Array.isArray(given) && given.every((one) => typeof one === "number");
