/** Reads adapters that Python's peft has written: LoRA with its variants, and VeRA. */
import { decodeF32, type Files, FormatError, type TensorFile } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { createAdapter, type Adapter } from "../../adapter/adapter.ts";
import { type AdapterSet } from "../../adapter/adapter-set.ts";
import { adaptersOf } from "../../adapter/adapter.ts";
import { moduleInfos } from "../../adapter/modules.ts";
import { patternMatcher } from "../../match.ts";
import type { BiasMode, CommonOptions, Method } from "../../method.ts";
import { methods } from "../../methods/index.ts";
import { PatternWork } from "../../regex/pattern.ts";
import type { LoadOptions } from "../options.ts";
import { asFileSays, CONFIG_FILE, fitsIn, openTensors } from "../native.ts";
import { veraProjections } from "../torch-random.ts";
import {
  parsePeftLora,
  parsePeftVera,
  type PeftLoraConfig,
  type PeftTargets,
  type PeftVeraConfig,
} from "./config.ts";
import { expertTargets, isStacked, type StackedExperts, stackedExperts, stackedTensors } from "./experts.ts";
import { into, PREFIX, readInto, type Wanted } from "./keys.ts";
import { savedModules, targetPaths } from "./targets.ts";
import { tokenRows, tokensOf } from "./trained-tokens.ts";
import { readBlocks, unpackedMethod, unpackedTensors } from "./unpack.ts";

type Config = Readonly<Record<string, unknown>>;

/** Puts a LoRA adapter on a model: plain, rank-stabilized, with patterns, biases or saved modules, or DoRA. */
export async function loadPeftLora(
  model: nn.Module,
  files: Files,
  raw: Config,
  options: LoadOptions = {},
): Promise<Adapter> {
  const file = `${files.name}/${CONFIG_FILE}`;
  const config = parsePeftLora(raw, file);
  const { common, stacked } = commonOptions(model, config.targets, config, file);
  const method = loraMethod(config, {
    ...common,
    ...tokensOf(config.tokens, file),
    alpha: config.alpha,
    scaling: config.rsLora ? "sqrt-rank" : "rank",
    rankPattern: asFileSays(file, "rank_pattern", () => usedPatterns(config.rankPattern, common.target)),
    alphaPattern: asFileSays(file, "alpha_pattern", () => usedPatterns(config.alphaPattern, common.target)),
  });
  return withTensors(files, (tensors) =>
    fill(model, files, tensors, method, options, (adapter) => [
      ...loraTensors(adapter, stacked),
      ...stackedTensors(adapter, stacked),
      ...tokenRows(adapter).map(({ name, shape, set }) => ({ names: [name], shape, set: set! })),
      ...replacedTensors(adapter),
    ]),
  );
}

function loraMethod({ dora: isDora, loraBias: hasBias }: PeftLoraConfig, options: CommonOptions): Method {
  if (isDora) return methods.dora(options); // its magnitudes come from the file, not from the weights
  return hasBias ? methods.loraBias(options) : methods.lora(options);
}

/**
 * Puts a VeRA adapter on a model. Projections that the file does not hold are drawn as PyTorch draws them. A pair that
 * `peftVeraFiles` has packed from several pairs is unpacked into them.
 */
export async function loadPeftVera(
  model: nn.Module,
  files: Files,
  raw: Config,
  options: LoadOptions = {},
): Promise<Adapter> {
  const where = `${files.name}/${CONFIG_FILE}`;
  const config = parsePeftVera(raw, where);
  const { common } = commonOptions(model, config.targets, config, where);
  return withTensors(files, (file) => {
    const blocks = config.saveProjection ? readBlocks(file, config.rank, common.target) : null;
    if (blocks !== null) {
      const wanted = (adapter: Adapter): Wanted[] => [
        ...unpackedTensors(adapter, blocks, file.name),
        ...replacedTensors(adapter),
      ];
      return fill(model, files, file, unpackedMethod(blocks, common), options, wanted);
    }
    const { dInitial, saveProjection } = config;
    if (!saveProjection) checkRank(config.rank, model, common.target, where);
    const method = methods.vera({ ...common, dInitial });
    return fill(model, files, file, method, options, (adapter) => veraTensors(adapter, config), saveProjection ? [] : ["A", "B"]); // prettier-ignore
  });
}

function veraTensors(adapter: Adapter, { saveProjection, seed, rank }: PeftVeraConfig): Wanted[] {
  const [A, B] = [adapter.select({ factors: ["A"] })[0]!, adapter.select({ factors: ["B"] })[0]!];
  if (!saveProjection) {
    const drawn = veraProjections(seed, rank, A.shape[1]!, B.shape[0]!);
    A.set(drawn.A);
    B.set(drawn.B);
  }
  const projections = [into(A, "base_model.vera_A"), into(B, "base_model.vera_B")];
  const vectors = [...adapter.layers()].flatMap(([, layer]) => [
    into(layer.parameter("v")!, `${PREFIX}${layer.member.path}.vera_lambda_b`),
    into(layer.parameter("u")!, `${PREFIX}${layer.member.path}.vera_lambda_d`),
  ]);
  return [...(saveProjection ? projections : []), ...vectors, ...replacedTensors(adapter)];
}

export function commonOptions(
  model: nn.Module,
  targets: PeftTargets,
  { rank, dropout, bias }: { readonly rank: number; readonly dropout: number; readonly bias: BiasMode },
  file: string,
): { readonly common: CommonOptions & { readonly target: string[] }; readonly stacked: StackedExperts[] } {
  const set = adaptersOf(model);
  const infos = moduleInfos(set.hosts).filter(({ kind }) => kind !== "norm"); // which peft adapts by LN_TUNING alone
  const stacked = stackedExperts(infos, targets.parameters, file);
  const { modules } = targets;
  // With parameters of experts, no modules need be named.
  const alone = stacked.length > 0 && (modules === null || (Array.isArray(modules) && modules.length === 0));
  const paths = alone
    ? []
    : asFileSays(file, "target_modules", () => targetPaths(model, infos, targets, file));
  const target = [...paths.filter((path) => !isStacked(path, stacked)), ...expertTargets(stacked)];
  const parameters = [...set.ownParameters()].map(([path, { shape }]) => ({ path, shape }));
  const common = {
    rank,
    dropout,
    bias,
    target,
    modulesToSave: savedModules(parameters, targets.modulesToSave, file),
  };
  return { common, stacked };
}

/**
 * Throws if the rank of projections that are drawn exceeds the modules' sizes: it would only cost memory, and no file bounds it.
 * Ranks up to 1024 always pass, so that peft's defaults do on the smallest models.
 */
function checkRank(rank: number, model: nn.Module, target: readonly string[], file: string): void {
  const modules = moduleInfos(adaptersOf(model).hosts).filter(({ path }) => target.includes(path));
  const largest = modules.reduce((size, one) => Math.max(size, one.in, one.out), 1024);
  if (rank <= largest) return;
  const expected = `at most ${largest}, by the sizes of the adapted modules`;
  throw new FormatError({ file, tensor: "r", found: String(rank), expected });
}

/** Leaves out patterns that match no module: peft ignores them, but here they would be an error. */
function usedPatterns(
  patterns: Readonly<Record<string, number>>,
  paths: readonly string[],
): Record<string, number> {
  const work = new PatternWork();
  return Object.fromEntries(
    Object.entries(patterns).filter(([key]) => paths.some(patternMatcher(key, work))),
  );
}

const LORA_NAMES: Readonly<Record<string, string>> = {
  A: "lora_A.weight",
  B: "lora_B.weight",
  c: "lora_B.bias",
  m: "lora_magnitude_vector",
};

function loraTensors(adapter: Adapter, stacked: readonly StackedExperts[]): Wanted[] {
  const single = [...adapter.layers()].filter(([, { member }]) => !isStacked(member.path, stacked));
  return single.flatMap(([host, layer]) =>
    Object.keys(adapter.method.factors).map((factor): Wanted => {
      const matrix = factor === "A" || factor === "B";
      const name = host instanceof nn.Embedding && matrix ? `lora_embedding_${factor}` : LORA_NAMES[factor]!;
      return into(layer.parameter(factor)!, `${PREFIX}${layer.member.path}.${name}`);
    }),
  );
}

/** The copies of the model's own parameters. peft names the bias of an adapted module after the layer inside the adapter. */
export function replacedTensors(adapter: Adapter): Wanted[] {
  const adapted = new Set([...adapter.layers()].map(([, { member }]) => `${member.path}.bias`));
  return [...adapter.replacements()].map(([path, parameter]): Wanted => {
    const plain = `${PREFIX}${path}`;
    const inside = `${PREFIX}${path.slice(0, -"bias".length)}base_layer.bias`;
    return into(parameter, ...(adapted.has(path) ? [inside, plain] : [plain]));
  });
}

export async function withTensors<T>(files: Files, work: (file: TensorFile) => Promise<T>): Promise<T> {
  const file = await openTensors(files);
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

/** Makes an adapter, sets its parameters from a file, and attaches it. `drawn`: factors that do not come from the file. */
export async function fill(
  model: nn.Module,
  files: Files,
  file: TensorFile,
  method: Method,
  options: LoadOptions & { readonly seed?: number },
  wantedBy: (adapter: Adapter) => Wanted[],
  drawn: readonly string[] = [],
): Promise<Adapter> {
  const adapter = asFileSays(`${files.name}/${CONFIG_FILE}`, "target_modules", () =>
    createAdapter(model, method, { ...options, blank: true, check: fitsIn(file, drawn) }),
  );
  const set = adaptersOf(model);
  const repeated = repeatedNames(file, set, adapter);
  await readInto(file, wantedBy(adapter), {
    ...(options.strict !== undefined && { strict: options.strict }),
    ignored: (name) => repeated.has(name) || isQuirk(name, adapter),
  });
  for (const [name, path] of repeated) await checkRepeated(file, name, set.ownParameters().get(path)!);
  if (options.trainable === false) adapter.freeze();
  return adapter.attach(options);
}

/** Whether a tensor is one of the two extra copies of a saved module's bias that peft writes with bias "all". */
function isQuirk(name: string, { method, plan }: Adapter): boolean {
  const found = /^(.*)\.(?:modules_to_save|original_module)\.bias$/.exec(name);
  return (
    found !== null &&
    method.bias === "all" &&
    plan.replaced.some(({ path }) => `${PREFIX}${path}` === `${found[1]}.bias`)
  );
}

/** The weights of embeddings, which peft also writes if an embedding is adapted: name in the file -> path in the model. */
function repeatedNames(file: TensorFile, set: AdapterSet, adapter: Adapter): Map<string, string> {
  const replaced = new Set(adapter.plan.replaced.map(({ path }) => path));
  const repeated = new Map<string, string>();
  for (const name of file.entries.keys()) {
    if (!name.startsWith(PREFIX) || !name.endsWith(".weight")) continue;
    const path = name.slice(PREFIX.length).replace(/(\.token_adapter)?\.base_layer\.weight$/, ".weight");
    const module = path.slice(0, -".weight".length);
    const embedding = set.hosts.get(module) instanceof nn.Embedding || module === "lm_head";
    if (embedding && set.hosts.has(module) && !replaced.has(path)) repeated.set(name, path);
  }
  return repeated;
}

/** Throws unless such a weight equals the model's: that of a resized or trained embedding would be silently lost. */
async function checkRepeated(file: TensorFile, name: string, own: nn.Parameter): Promise<void> {
  const stored = decodeF32(await file.read(name), file.name, name);
  const values = await own.data();
  if (stored.length === values.length && stored.every((value, i) => value === values[i])) return;
  throw new FormatError({
    file: file.name,
    tensor: name,
    found: "an embedding that differs from the model's",
    expected: "the same, since modules_to_save does not name it",
    hint: "In Python, save the model with these embeddings, and load the adapter on that.",
  });
}
