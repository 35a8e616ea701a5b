/**
 * Compares logits with those computed by Python's transformers and peft.
 *
 *   npm run parity -- DIR [--backend cpu|webgpu|reference]
 *
 * A base model is a directory of DIR with an `expected.json` (input_ids, shape, base_logits, logits_NAME). Beside BASE lie
 * copies of it in other precisions or shards (BASE-f16, BASE-bf16, BASE-sharded) and adapters: BASE-adapter-NAME, or one
 * tied adapter in several formats, BASE-tied-as-FORMAT and BASE-tied-reference. A `vera_prng.json` holds numbers from
 * PyTorch's generator, which must be the same bits. The exit code is non-zero if logits differ by more than 2e-5, or 1e-4 for
 * weights in half precision.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { decodeF32, type Device, openSafetensors, parseJsonObject } from "@tiedlora/core";
import { fileSource } from "@tiedlora/core/node";
import type { Decoder } from "@tiedlora/models";
import { loadModel } from "@tiedlora/models/node";
import { adapt, FACTOR_NAMES, tiedLora, veraProjections } from "tiedlora";
import { loadAdapter } from "tiedlora/node";
import { isBackendName, BACKENDS } from "./backends.ts";

/** The limits on the difference of a logit. PyTorch in float32 differs from float64 by 7e-6. */
export const LIMITS = { full: 2e-5, half: 1e-4 } as const;

/** One comparison. */
export interface Check {
  /** The directory that is loaded. */
  readonly name: string;
  /** The largest difference of a logit; NaN if there was nothing to compare. */
  readonly difference: number;
  readonly limit: number;
  /** Why it could not be compared. */
  readonly problem?: string;
}

export function passed({ difference, limit }: Check): boolean {
  return difference <= limit; // NaN fails
}

interface Expected {
  readonly inputIds: readonly number[][];
  readonly logits: ReadonlyMap<string, readonly number[]>;
}

/** Compares VeRA's projections with those that PyTorch has drawn. */
async function compareDrawn(directory: string): Promise<Check> {
  const path = join(directory, DRAWN);
  const { cases } = parseJsonObject(await readFile(path, "utf8"), path) as unknown as { cases: Drawn[] };
  const differences = cases.flatMap((one) => {
    const { A, B } = veraProjections(one.seed, one.r, one.in_features, one.out_features);
    const off = (values: Float32Array, wanted: readonly number[]): number[] =>
      wanted.map((value, i) => Math.abs(value - values[i]!));
    return [
      ...off(A, one.A_first8),
      ...off(A.subarray(-one.A_last4.length), one.A_last4),
      ...off(B, one.B_first8),
      ...off(B.subarray(-one.B_last4.length), one.B_last4),
    ];
  });
  return { name: DRAWN, difference: Math.max(...differences), limit: 0 };
}

const DRAWN = "vera_prng.json";

interface Drawn {
  readonly r: number;
  readonly in_features: number;
  readonly out_features: number;
  readonly seed: number;
  readonly A_first8: readonly number[];
  readonly A_last4: readonly number[];
  readonly B_first8: readonly number[];
  readonly B_last4: readonly number[];
}

/** Runs all comparisons of a directory, one after another. */
export async function* compareAll(directory: string, device: Device): AsyncGenerator<Check> {
  const entries = await readdir(directory, { withFileTypes: true });
  const names = entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  const files = new Map<string, Set<string>>();
  for (const name of names) files.set(name, new Set(await readdir(join(directory, name))));
  const bases = names.filter((name) => files.get(name)!.has("expected.json"));
  /** The base to which a name belongs: the longest one followed by "-" in the name. */
  const baseOf = (name: string): string | undefined =>
    bases.filter((base) => name.startsWith(`${base}-`)).sort((a, b) => b.length - a.length)[0];
  if (entries.some(({ name }) => name === DRAWN)) yield await compareDrawn(directory);
  for (const base of bases) {
    const expected = await readExpected(join(directory, base, "expected.json"));
    const model = await loadModel(join(directory, base), { device }).catch(
      (error: unknown) => error as Error,
    );
    if (model instanceof Error) {
      yield failure(base, model.message);
      continue;
    }
    yield await compare(base, model, expected, "base_logits");
    for (const name of names.filter((one) => !bases.includes(one) && baseOf(one) === base)) {
      const suffix = name.slice(base.length + 1);
      const path = join(directory, name);
      const check = files.get(name)!.has("config.json")
        ? compareCopy(path, name, device, expected, copyKey(suffix, expected))
        : compareAdapter(path, name, model, expected, adapterKey(suffix));
      yield await check.catch((error: unknown) => failure(name, (error as Error).message));
    }
  }
}

function failure(name: string, problem: string): Check {
  return { name, difference: NaN, limit: LIMITS.full, problem };
}

async function compareCopy(
  path: string,
  name: string,
  device: Device,
  expected: Expected,
  key: string,
): Promise<Check> {
  return compare(name, await loadModel(path, { device }), expected, key);
}

/** The name of the logits of a copy of a base model: its own if half precision has changed them, else the base's. */
function copyKey(suffix: string, { logits }: Expected): string {
  const own = `base_logits_${suffix}_weights_f32_math`;
  return logits.has(own) ? own : "base_logits";
}

function adapterKey(suffix: string): string {
  return suffix.startsWith("tied-") ? "logits_tied" : `logits_${suffix.replace(/^adapter-/, "")}`;
}

async function compareAdapter(
  path: string,
  name: string,
  model: Decoder,
  expected: Expected,
  key: string,
): Promise<Check> {
  const loaded = (await readdir(path)).includes("tied.json")
    ? await loadReference(path, model)
    : await loadAdapter(model, path);
  try {
    return await compare(name, model, expected, key);
  } finally {
    loaded.detach();
  }
}

async function compare(name: string, model: Decoder, expected: Expected, key: string): Promise<Check> {
  const half = model.parameters().some(({ dtype }) => dtype === "f16" || dtype === "bf16");
  const limit = half ? LIMITS.half : LIMITS.full;
  const wanted = expected.logits.get(key);
  if (wanted === undefined) return failure(name, `expected.json has no ${key}`);
  const logits = await model.forward(expected.inputIds).data();
  if (logits.length !== wanted.length) return failure(name, `${logits.length} logits, not ${wanted.length}`);
  const differences = Array.from(logits, (value, i) => Math.abs(value - wanted[i]!));
  return { name, difference: differences.some(Number.isNaN) ? NaN : Math.max(...differences), limit };
}

async function readExpected(path: string): Promise<Expected> {
  const json = parseJsonObject(await readFile(path, "utf8"), path);
  const logits = Object.entries(json).filter(
    ([key]) => key.startsWith("base_logits") || key.startsWith("logits_"),
  );
  return {
    inputIds: json["input_ids"] as number[][],
    logits: new Map(logits.map(([key, values]) => [key, (values as unknown[]).flat(Infinity) as number[]])),
  };
}

/** A tied adapter as plain tensors: tied.TYPE.A and .B for each type of module, PATH.u and .v for each module. */
async function loadReference(path: string, model: Decoder): Promise<{ detach(): void }> {
  const { r, alpha } = parseJsonObject(await readFile(join(path, "tied.json"), "utf8"), "tied.json");
  const file = await openSafetensors(await fileSource(join(path, "tied.safetensors")));
  try {
    const types = [...file.entries.keys()].flatMap((name) => /^tied\.(.*)\.A$/.exec(name)?.[1] ?? []);
    const method = tiedLora({
      trained: FACTOR_NAMES,
      rank: r as number,
      alpha: alpha as number,
      target: types,
    });
    const adapter = adapt(model, method);
    for (const [place, parameter] of adapter.stateDict()) {
      const [, module, factor] = /^(.*)\.(\w+)$/.exec(place)!;
      const tied = factor === "A" || factor === "B";
      const name = tied ? `tied.${types.find((type) => module!.endsWith(`.${type}`))}.${factor}` : place;
      parameter.set(decodeF32(await file.read(name), file.name, name));
    }
    return adapter;
  } finally {
    await file.close();
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { backend: { type: "string", default: "cpu" } },
  });
  const [directory] = positionals;
  if (directory === undefined || !isBackendName(values.backend)) {
    console.error(`usage: npm run parity -- DIR [--backend ${Object.keys(BACKENDS).join("|")}]`);
    return 2;
  }
  const device = await BACKENDS[values.backend]();
  const checks: Check[] = [];
  try {
    console.log(
      `largest difference of a logit, on ${device.name}; limits: ${LIMITS.full}, half precision ${LIMITS.half}`,
    );
    for await (const check of compareAll(directory, device)) {
      checks.push(check);
      const what = check.problem ?? check.difference.toExponential(1);
      console.log(`${passed(check) ? "ok  " : "FAIL"} ${check.name.padEnd(44)} ${what}`);
    }
  } finally {
    device.close();
  }
  const good = checks.filter(passed).length;
  console.log(`${good} of ${checks.length} within the limits`);
  return checks.length > 0 && good === checks.length ? 0 : 1;
}

if (process.argv[1]?.endsWith("parity.ts")) process.exitCode = await main(process.argv.slice(2));
