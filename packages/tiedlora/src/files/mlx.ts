/**
 * Reads and writes adapters of mlx-lm: `adapters.safetensors` holds lora_a [in, rank] and lora_b [rank, out], the transposes of
 * peft's A and B, and y += scale · x a b, where the scale in the config is already alpha / rank. The config names modules inside
 * layers, the same modules in each of the last `num_layers` layers.
 */
import {
  decodeF32,
  describeValue,
  type Files,
  FormatError,
  isRecord,
  openSafetensors,
  sameShape,
  type Tensor,
  type TensorFile,
  writeSafetensors,
  zeros,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { type Adapter, createAdapter } from "../adapter/adapter.ts";
import { adaptersOf } from "../adapter/adapter.ts";
import { moduleInfos } from "../adapter/modules.ts";
import { layerOf } from "../match.ts";
import { isScale, type Method } from "../method.ts";
import { methods } from "../methods/index.ts";
import type { LinearInfo } from "../linear-info.ts";
import type { LoadOptions } from "./options.ts";
import { CONFIG_FILE, fitsIn, missingFile, parametersToWrite, type Provenance } from "./native.ts";
import type { OutputFile } from "../output-file.ts";
import { foldsScale, loraFactors, type LoraFactors } from "./peft/save.ts";

export const MLX_TENSORS = "adapters.safetensors";

/** Whether a config is that of an mlx-lm adapter. */
export function isMlxConfig(config: Readonly<Record<string, unknown>>): boolean {
  return !("peft_type" in config) && ("lora_parameters" in config || "fine_tune_type" in config);
}

/** The path of a module in mlx-lm, which names GPT-2's trunk "model". */
const toMlx = (path: string): string => path.replace(/^transformer\./, "model.");

/**
 * Puts an mlx-lm adapter on a model. Throws FormatError if a tensor belongs to no module of the model, or if a module lacks one of
 * its tensors.
 */
export async function loadMlx(
  model: nn.Module,
  files: Files,
  config: Readonly<Record<string, unknown>>,
  options: LoadOptions = {},
): Promise<Adapter> {
  const source = await files.open(MLX_TENSORS);
  if (source === null) throw missingFile(files, MLX_TENSORS);
  const file = await openSafetensors(source);
  try {
    const { isDora, scale, dropout } = parseConfig(config, `${files.name}/${CONFIG_FILE}`);
    const { hosts } = adaptersOf(model);
    const paths = modulesIn(file, new Map([...hosts.keys()].map((path) => [toMlx(path), path])), isDora);
    const ranks = [...paths.keys()].map((name) => file.entries.get(`${name}.lora_a`)!.shape[1] ?? 0);
    const rank = ranks[0]!;
    const odd = ranks.findIndex((one) => one !== rank);
    if (odd >= 0)
      throw new FormatError({ file: file.name, tensor: [...paths.keys()][odd]!, found: `rank ${ranks[odd]}`, expected: `rank ${rank}, as in the first module` }); // prettier-ignore
    const common = { rank, alpha: scale * rank, dropout, target: [...paths.values()] };
    const method: Method = isDora ? methods.dora(common) : methods.lora(common);
    const adapter = createAdapter(model, method, { ...options, blank: true, check: fitsIn(file) });
    for (const [name, path] of paths) {
      await readTransposed(file, `${name}.lora_a`, adapter.parameter(`${path}.A`));
      await readTransposed(file, `${name}.lora_b`, adapter.parameter(`${path}.B`));
      if (isDora) await readTransposed(file, `${name}.m`, adapter.parameter(`${path}.m`));
    }
    if (options.trainable === false) adapter.freeze();
    return adapter.attach(options);
  } finally {
    await file.close();
  }
}

function parseConfig(
  config: Readonly<Record<string, unknown>>,
  file: string,
): { isDora: boolean; scale: number; dropout: number } {
  const { fine_tune_type: type = "lora", lora_parameters: given } = config;
  if (type !== "lora" && type !== "dora")
    throw new FormatError({
      file,
      tensor: "fine_tune_type",
      found: describeValue(type),
      expected: `"lora" or "dora"`,
    });
  const { scale, dropout = 0 } = isRecord(given) ? given : {};
  if (typeof scale !== "number" || !isScale(scale))
    throw new FormatError({ file, tensor: "lora_parameters", found: `scale ${describeValue(scale)}`, expected: "a number other than 0" }); // prettier-ignore
  if (typeof dropout !== "number" || !(dropout >= 0 && dropout < 1))
    throw new FormatError({ file, tensor: "lora_parameters", found: `dropout ${describeValue(dropout)}`, expected: "at least 0 and below 1" }); // prettier-ignore
  return { isDora: type === "dora", scale, dropout };
}

/** The adapted modules: name in the file -> path in the model, in the model's order. */
function modulesIn(
  file: TensorFile,
  known: ReadonlyMap<string, string>,
  isDora: boolean,
): Map<string, string> {
  const parts = isDora ? ["lora_a", "lora_b", "m"] : ["lora_a", "lora_b"];
  const found = new Map<string, Set<string>>();
  for (const name of file.entries.keys()) {
    const dot = name.lastIndexOf(".");
    const [module, part] = [name.slice(0, dot), name.slice(dot + 1)];
    if (!parts.includes(part) || !known.has(module)) {
      throw new FormatError({
        file: file.name,
        tensor: name,
        found: "a tensor without a place in this model",
        expected: `${parts.join(", ")} of its modules`,
        hint: "Is this the base model that the adapter was trained on?",
      });
    }
    found.set(module, (found.get(module) ?? new Set()).add(part));
  }
  for (const [module, present] of found) {
    const missing = parts.find((part) => !present.has(part));
    if (missing !== undefined)
      throw new FormatError({ file: file.name, tensor: `${module}.${missing}`, found: "nothing", expected: "it beside the others" }); // prettier-ignore
  }
  if (found.size === 0)
    throw new FormatError({ file: file.name, found: "no tensors", expected: "an adapter" });
  return new Map([...known].filter(([module]) => found.has(module)));
}

/** Reads a tensor into a parameter, transposed; a vector is read unchanged. */
async function readTransposed(file: TensorFile, name: string, parameter: nn.Parameter): Promise<void> {
  const { shape } = file.entries.get(name)!;
  const wanted = [...parameter.shape].reverse();
  if (!sameShape(shape, wanted))
    throw new FormatError({ file: file.name, tensor: name, found: `shape [${shape.join(", ")}]`, expected: `[${wanted.join(", ")}]` }); // prettier-ignore
  const values = decodeF32(await file.read(name), file.name, name);
  const [rows = 0, columns = 1] = parameter.shape;
  parameter.set(values.map((_, i) => values[(i % columns) * rows + Math.floor(i / columns)]!));
}

/**
 * The files of an adapter as mlx-lm's LoRA or DoRA, in f32. Modules that mlx-lm would adapt in addition to the adapter's own get an
 * update of zero. Throws for methods that have no such form, for modules outside of layers, for embeddings, and for replaced
 * parameters, none of which mlx-lm supports.
 */
export function mlxFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  const [replaced] = adapter.plan.replaced;
  if (replaced !== undefined)
    throw new Error(
      `mlx-lm's adapters have no ${replaced.path}: it replaces a parameter of the model; export as peft-lora`,
    );
  if (adapter.plan.tokens !== null)
    throw new Error(
      `mlx-lm's adapters have no place for rows of ${adapter.plan.tokens.site.path} (trainedTokens); export as peft-lora`,
    );
  const modules = adapterModules(adapter);
  const rank = Math.max(...modules.map(({ factors }) => factors.A.shape[0]!));
  const scales = new Set(modules.map(({ scale }) => scale));
  const shared = scales.size === 1 ? modules[0]!.scale : 1; // if the scales differ, each is multiplied into its own B
  const tensors = modules.flatMap(({ path, factors: { A, B, m }, scale }): [string, Tensor][] => {
    const a = A.transpose().pad([[0, 0], [0, rank - A.shape[0]!]]); // prettier-ignore
    const b = (scale === shared ? B : B.mul(scale)).transpose().pad([[0, rank - B.shape[1]!], [0, 0]]); // prettier-ignore
    const name = toMlx(path);
    return [[`${name}.lora_a`, a], [`${name}.lora_b`, b], ...(m ? [[`${name}.m`, m] as [string, Tensor]] : [])]; // prettier-ignore
  });
  const isDora = modules.some(({ factors }) => factors.m !== undefined);
  const filled = zeroModules(adapter, modules, isDora).flatMap((info): [string, Tensor][] => [
    [`${toMlx(info.path)}.lora_a`, zeros([info.in, rank])],
    [`${toMlx(info.path)}.lora_b`, zeros([rank, info.out])],
  ]);
  const config = {
    fine_tune_type: isDora ? "dora" : "lora",
    lora_parameters: { dropout: adapter.method.dropout, keys: keysOf(modules), rank, scale: shared },
    model: provenance["base_model"] ?? null,
    num_layers: layerCount(adapter) - firstLayer(modules),
  };
  return [
    [MLX_TENSORS, writeSafetensors(parametersToWrite([...tensors, ...filled]), [["format", "mlx"]])],
    [CONFIG_FILE, `${JSON.stringify(config, null, 2)}\n`],
  ];
}

interface MlxModule {
  readonly path: string;
  readonly layer: number;
  readonly factors: LoraFactors;
  readonly scale: number;
}

function adapterModules(adapter: Adapter): MlxModule[] {
  const folded = foldsScale(adapter);
  return [...adapter.layers()].map(([host, adapted]) => {
    const { path } = adapted.member;
    const layer = layerOf(path);
    if (layer === null || !(host instanceof nn.Linear))
      throw new Error(
        `mlx-lm adapts linear modules inside layers only, and ${path} is none; export as peft-lora`,
      );
    const factors = loraFactors(adapter, adapted, folded);
    if (factors.c !== undefined) throw new Error("mlx-lm's LoRA has no bias on B; export as peft-lora");
    return { path, layer, factors, scale: folded ? 1 : adapted.scale };
  });
}

/** The path of a module inside its layer: "self_attn.q_proj" for "model.layers.3.self_attn.q_proj". */
const keyOf = (path: string): string => path.replace(/^.*?\.\d+\./, "");
const keysOf = (modules: readonly MlxModule[]): string[] => [
  ...new Set(modules.map(({ path }) => keyOf(path))),
];
const firstLayer = (modules: readonly MlxModule[]): number => Math.min(...modules.map(({ layer }) => layer));

function layerCount(adapter: Adapter): number {
  const infos = moduleInfos(adaptersOf(adapter.model).hosts);
  return 1 + Math.max(...infos.map(({ path }) => layerOf(path) ?? -1));
}

/** Modules that the adapter does not change, but that mlx-lm's config includes, because they have the same names inside layers. */
function zeroModules(adapter: Adapter, modules: readonly MlxModule[], isDora: boolean): LinearInfo[] {
  const own = new Set(modules.map(({ path }) => path));
  const [keys, first] = [keysOf(modules), firstLayer(modules)];
  const others = moduleInfos(adaptersOf(adapter.model).hosts).filter(({ path }) => {
    const layer = layerOf(path);
    return layer !== null && layer >= first && keys.includes(keyOf(path)) && !own.has(path);
  });
  if (isDora && others.length > 0)
    throw new Error(
      `mlx-lm would adapt ${others[0]!.path} as well, and DoRA has no update of zero; export as peft-lora`,
    );
  return others;
}
