/**
 * Cases recorded from PyTorch, for any backend: results, gradients and second gradients of small programs in float64, with
 * float32 PyTorch's own error. Unlike the rest of the suite, they compare with the results of another library.
 *
 *   const suite = recorded(() => myDevice(), { backend: "mine" });
 *   for (const { name, run } of suite.cases) test(name, run);
 *   after(() => suite.close());
 * @module
 */
import type { Device } from "@tiedlora/core";
import type { ConformanceCase } from "../suites/context.ts";
import { ELEMENTWISE } from "./data/elementwise.ts";
import { GRAPHS } from "./data/graphs.ts";
import { MOVEMENT } from "./data/movement.ts";
import { NETWORKS } from "./data/networks.ts";
import { PRODUCTS } from "./data/products.ts";
import { REDUCTIONS } from "./data/reductions.ts";
import { TRAINING } from "./data/training.ts";
import { EXCEPTIONS, type RecordedException } from "./exceptions.ts";
import { parseCases, type RecordedCase } from "./format.ts";
import { runCases } from "./run.ts";

export { EXCEPTIONS, type RecordedException } from "./exceptions.ts";
export type { Expected, RecordedCase, RecordedInput, Training } from "./format.ts";
export { OPERATIONS } from "./operations.ts";

/** All recorded cases, parsed. */
export const recordedCases = (): RecordedCase[] =>
  [ELEMENTWISE, REDUCTIONS, MOVEMENT, PRODUCTS, NETWORKS, GRAPHS, TRAINING].flatMap(parseCases);

/** Which of the recorded cases run, and which of them a backend may fail. */
export interface RecordedOptions {
  /** The name by which exceptions match the backend. */
  readonly backend: string;
  /** The share of the cases to run, from 0 to 1 (the default: all). The same share always selects the same cases. */
  readonly share?: number;
  /** Cases that are expected to fail; one that passes fails the suite. Default: `EXCEPTIONS`. */
  readonly exceptions?: readonly RecordedException[];
}

/** Cases to run, grouped by operation. */
export interface RecordedSuite {
  readonly cases: readonly ConformanceCase[];
  /** Closes the device that the cases share. */
  close(): Promise<void>;
}

/** The number of cases in one program. */
const BATCH = 32;

/** Maps names evenly to [0, 1) (FNV-1a). */
function place(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return (Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0) / 2 ** 32;
}

/** Whether the case needs only types that the backend has. */
function needsOnly(recorded: RecordedCase, { backend }: Device): boolean {
  const casts = recorded.steps.flatMap(([name, ...args]) => (name === "cast" ? [args[1] as never] : []));
  return [...recorded.inputs.map(({ dtype }) => dtype), ...casts].every((dtype) =>
    backend.caps.dtypes.has(dtype),
  );
}

const exceptionOf = (
  id: string,
  { backend, exceptions = EXCEPTIONS }: RecordedOptions,
): RecordedException | undefined => exceptions.find(({ cases, on }) => on.test(backend) && cases.test(id));

/** The failures in `wrong` that no exception covers, and the exceptions whose case passes. */
function complaints(
  cases: readonly RecordedCase[],
  wrong: ReadonlyMap<string, string>,
  options: RecordedOptions,
): string[] {
  return cases.flatMap(({ id }) => {
    const [message, exception] = [wrong.get(id), exceptionOf(id, options)];
    if (message !== undefined) return exception ? [] : [`${id}: ${message}`];
    return exception === undefined
      ? []
      : [`${id} is right: remove it from the exceptions ("${exception.reason}")`];
  });
}

/** The recorded cases as a suite for the backend of the device that `makeDevice` returns. */
export function recorded(
  makeDevice: () => Promise<Device> | Device,
  options: RecordedOptions,
): RecordedSuite {
  let device: Promise<Device> | undefined;
  const open = (): Promise<Device> => (device ??= Promise.resolve(makeDevice()));
  const groups = new Map<string, RecordedCase[]>();
  for (const one of recordedCases()) {
    if (place(one.id) >= (options.share ?? 1)) continue;
    const [group] = one.id.split("/") as [string];
    groups.set(group, [...(groups.get(group) ?? []), one]);
  }
  const run = async (cases: readonly RecordedCase[]): Promise<void> => {
    const on = await open();
    const chosen = cases.filter((one) => needsOnly(one, on));
    const found: string[] = [];
    for (let i = 0; i < chosen.length; i += BATCH) {
      const batch = chosen.slice(i, i + BATCH);
      found.push(...complaints(batch, await runCases(on, batch), options));
    }
    if (found.length > 0) throw new Error(`${found.length} of ${chosen.length} cases:\n${found.join("\n")}`);
  };
  return {
    cases: [...groups].map(([group, cases]) => ({
      name: `${group}: ${cases.length} cases recorded from PyTorch`,
      run: () => run(cases),
    })),
    close: async () => (await device)?.close(),
  };
}
