/** `tiedlora combine`: several adapters, or one of any method, as one LoRA adapter. */
import { type Command, InvalidArgumentError } from "commander";
import type { Decoder } from "@tiedlora/models";
import { type Approximated, COMBINE_NAMES, combineMeasured, type CombineHow } from "tiedlora";
import { checkTarget } from "tiedlora/internal/node";
import { loadAdapter, saveAdapter } from "tiedlora/node";
import { checkOut } from "./checks.ts";
import { checkOther, provenanceOf } from "./convert.ts";
import { type NamedAdapter, namedAdapters } from "./named-adapters.ts";
import { oneOf, path, whole } from "./options.ts";
import type { Output } from "./output.ts";
import { withLock } from "./run/lock.ts";
import { UsageError } from "./settings.ts";
import { addModelFlags, findAdapter, type ModelFlags, withModelAlone } from "./with-model.ts";

interface CombineFlags extends Omit<ModelFlags, "adapter"> {
  readonly adapter?: readonly string[];
  readonly weights?: Readonly<Record<string, number>>;
  readonly how: CombineHow;
  readonly rank?: number;
  readonly density?: number;
  readonly seed?: number;
  readonly out: string;
  readonly force?: true;
}

export function addCombine(program: Command, output: Output): void {
  const command = program
    .command("combine")
    .description("write several adapters, or one of any method, as one LoRA adapter");
  addModelFlags(command, { several: true })
    .option("--weights <name=x,...>", "the weight of each adapter, of any sign (default: 1 each)", weightsOf)
    .option(
      "--how <name>",
      "cat: exactly the weighted sum; linear: the sum of the factors; at a rank: svd, the sum, of adapters of any method; magnitude, ties, dare, " +
        "dare-ties, a merge element by element",
      oneOf(COMBINE_NAMES),
      "cat",
    )
    .option(
      "--rank <n>",
      "the rank, for all but cat and linear (default: the largest of the adapters)",
      whole(1),
    )
    .option("--density <x>", "the share of elements that magnitude, ties and dare keep (default: 0.5)", share)
    .option("--seed <n>", "the seed of what dare drops (default: 0)", whole(0))
    .requiredOption("--out <dir>", "where the adapter is written", path)
    .option("--force", "replace an adapter that is already there")
    .addHelpText(
      "after",
      "\nExamples:\n  tiedlora combine --model ./llama --adapter ./french ./formal --weights french=0.7,formal=0.3 --out ./both\n" +
        "  tiedlora combine --model ./llama --adapter ./tied --how svd --rank 8 --out ./as-lora",
    )
    .action((flags: CombineFlags) => combine(flags, output));
}

async function combine(flags: CombineFlags, output: Output): Promise<void> {
  const adapters = namedAdapters(flags.adapter ?? []);
  if (adapters.length === 0)
    throw new UsageError("--adapter is missing: give one or more adapters' directories");
  const weights = checkedWeights(adapters, flags.weights);
  for (const { path: directory } of adapters) checkOther(flags.out, directory, "an adapter's own directory");
  await checkOut(flags.out);
  await withLock(flags.out, async () => {
    await checkTarget(flags.out, "adapter", flags.force === true);
    const first = { ...flags, adapter: adapters[0]!.path, attach: false } as const;
    await withModelAlone(first, output, async (opened) => {
      const { adapter, errors } = await combined(opened.model, adapters, weights, flags, output);
      await saveAdapter(adapter, flags.out, provenanceOf(opened), "native");
      for (const line of errorLines(errors)) output.info(line);
    });
  });
  output.info(`adapter saved in ${flags.out} (native)`);
}

async function combined(
  model: Decoder,
  adapters: readonly NamedAdapter[],
  weights: Readonly<Record<string, number>>,
  { how, rank, density, seed }: CombineFlags,
  output: Output,
): Promise<Approximated> {
  for (const { name, path: directory } of adapters)
    await loadAdapter(model, await findAdapter(directory, output), { name, active: false, trainable: false });
  const given = {
    ...(rank !== undefined && { rank }),
    ...(density !== undefined && { density }),
    ...(seed !== undefined && { seed }),
  };
  const name = `${adapters.map((one) => one.name).join(" + ")} (${how})`;
  if (rank !== undefined && (how === "cat" || how === "linear"))
    throw new UsageError(`--rank ${rank} is given, and --how ${how} determines the rank itself; give --how svd, or no --rank`); // prettier-ignore
  return combineMeasured(model, weights, { name, how, ...given });
}

/** Reads --density. Throws if it is no share. */
function share(given: string): number {
  const value = Number(given);
  if (given.trim() !== "" && value > 0 && value <= 1) return value;
  throw new InvalidArgumentError("expected a number above 0, at most 1.");
}

/** Reads --weights. Throws if there is no number after a name. */
function weightsOf(given: string): Record<string, number> {
  return Object.fromEntries(
    given.split(",").map((pair) => {
      const [, name, value] = /^(.+)=\s*([^=]+)$/.exec(pair.trim()) ?? [];
      const weight = Number(value);
      if (name === undefined || !Number.isFinite(weight))
        throw new InvalidArgumentError(`"${pair}" is no name with a number; expected e.g. french=0.7,formal=-0.3.`);
      return [name, weight];
    }),
  ); // prettier-ignore
}

/** The weight of each adapter. Throws UsageError for a weight of an adapter that is not given. */
function checkedWeights(
  adapters: readonly NamedAdapter[],
  given: Readonly<Record<string, number>> = {},
): Readonly<Record<string, number>> {
  const names = adapters.map(({ name }) => name);
  const stray = Object.keys(given).find((name) => !names.includes(name));
  if (stray !== undefined)
    throw new UsageError(`--weights: there is no adapter "${stray}"; there are ${names.join(", ")}`);
  return Object.fromEntries(names.map((name) => [name, given[name] ?? 1]));
}

/** What is said of an approximation; nothing of an exact form. */
function errorLines(errors: ReadonlyMap<string, number>): string[] {
  const all = [...errors];
  const [path, most] = all.reduce((worst, one) => (one[1] > worst[1] ? one : worst));
  if (most === 0) return [];
  const mean = all.reduce((sum, [, error]) => sum + error, 0) / all.length;
  const percent = (x: number): string => `${(100 * x).toPrecision(3)} %`;
  return [
    `what is lost of an update, as a share of its norm: ${percent(mean)} in the mean of ${all.length} modules, ${percent(most)} at most (${path})`,
  ];
}
