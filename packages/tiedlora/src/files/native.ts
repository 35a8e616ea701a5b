/**
 * The native adapter format: a directory with `adapter_model.safetensors`, which holds each tied factor once, under the path of its
 * first place, and `adapter_config.json`, from which the method is declared again. The other places of tied factors and the
 * adapter's provenance are in the metadata of the tensors' file. Python's peft cannot read it: export to one of peft's formats.
 */
import type { OutputFile } from "../output-file.ts";
import {
  describeValue,
  decodeF32,
  encodeTensor,
  FileError,
  FormatError,
  openSafetensors,
  parseJsonObject,
  product,
  readText,
  writeSafetensors,
  type Files,
  type Tensor,
  type TensorFile,
  type TensorToWrite,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { createAdapter, type Adapter } from "../adapter/adapter.ts";
import type { Json, Recipe } from "../method.ts";
import { methodFromRecipe } from "../methods/rebuild.ts";
import type { AdapterPlan } from "../adapter/plan.ts";
import type { LoadOptions } from "./options.ts";

export const CONFIG_FILE = "adapter_config.json";
export const TENSORS_FILE = "adapter_model.safetensors";
export const PEFT_TYPE = "TIED_LORA";

/** The origin of an adapter: any text by any key. `base_model` names the model,
 * and `base_revision` its commit on the hub; `separator` is the text that follows prompts; `quantize` is the form of the base's
 * weights in training, which is recorded in any case. */
export type Provenance = Readonly<Record<string, string>>;

/** The files of an adapter, in the order in which they should be written. */
export function nativeFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  const { method } = adapter;
  const config: { readonly [key: string]: Json } = {
    peft_type: PEFT_TYPE,
    format_version: 1,
    base_model_name_or_path: provenance["base_model"] ?? null,
    ...(provenance["base_revision"] !== undefined && { revision: provenance["base_revision"] }),
    method: method.name,
    recipe: { method: method.recipe.method, options: method.recipe.options },
    r: method.rank,
    lora_alpha: method.alpha,
    target_modules: [
      ...new Set(adapter.plan.sites.flatMap(({ site }) => site.members.map(({ path }) => path))),
    ],
    trained: [...adapter.stateDict()].filter(([, p]) => p.requiresGrad).map(([path]) => path),
  };
  const metadata = {
    format: "pt",
    "tiedlora.aliases": JSON.stringify(Object.fromEntries(adapter.aliases())),
    "tiedlora.provenance": JSON.stringify({ ...quantizationOf(adapter.model), ...provenance }),
  };
  return [
    [TENSORS_FILE, writeSafetensors(parametersToWrite(adapter.stateDict()), Object.entries(metadata))],
    [CONFIG_FILE, `${JSON.stringify(config, null, 2)}\n`],
  ];
}

/** The form to which the weights of a model were quantized while it was loaded, as `quantize` in the provenance; empty if there is none. */
function quantizationOf(model: nn.Module): Provenance {
  const quantized = model.parameters().filter((one) => one instanceof nn.QuantizedParameter);
  const forms = ([["nf4", "nf4"], ["signed", "int8"]] as const).filter(([table]) => quantized.some((one) => one.quantization.table === table)); // prettier-ignore
  return forms.length === 0 ? {} : { quantize: forms.map(([, form]) => form).join("+") };
}

/** Tensors to write in f32, from parameters or other tensors; each is computed and copied from the device when it is written. */
export function parametersToWrite(parameters: Iterable<readonly [string, Tensor]>): TensorToWrite[] {
  return [...parameters].map(([name, tensor]) => ({
    name,
    dtype: "F32",
    shape: tensor.shape,
    bytes: async () => encodeTensor("f32", await tensor.data()),
  }));
}

/** Puts a native adapter on a model. Throws if a tensor is missing, unexpected or of another shape; the model is then unchanged. */
export async function loadNative(
  model: nn.Module,
  files: Files,
  config: Record<string, unknown>,
  options: LoadOptions = {},
): Promise<Adapter> {
  const where = `${files.name}/${CONFIG_FILE}`;
  const method = options.method ?? methodFromRecipe(recipeOf(config, where), where);
  const file = await openTensors(files);
  try {
    const declared = { ...options, blank: true, check: fitsIn(file) };
    const adapter = options.method
      ? createAdapter(model, method, declared)
      : asFileSays(where, "recipe", () => createAdapter(model, method, declared));
    checkNames(adapter, file);
    checkAliases(adapter, file);
    for (const [path, parameter] of adapter.stateDict()) {
      parameter.set(decodeF32(await file.read(path), file.name, path));
    }
    restoreTrained(adapter, config, where, options.trainable ?? true);
    return adapter.attach(options);
  } finally {
    await file.close();
  }
}

/** Runs `work`, which uses the settings in a file, and rethrows its errors as FormatErrors about `field` of that file. */
export function asFileSays<T>(file: string, field: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof FileError || cause instanceof TypeError || !(cause instanceof Error)) throw cause;
    const hint = "Is this the base model that the adapter was trained on?";
    throw new FormatError({ file, tensor: field, found: cause.message, expected: "what fits the model", hint }); // prettier-ignore
  }
}

/** An adapter may have this many times the elements of its file, plus a million; smaller excesses are reported by tensor. */
const ROOM = 8;

/**
 * Returns a check that throws if an adapter of a plan is far larger than its file: a config must not make its reader allocate
 * memory for values that the file does not hold. `drawn`: factors that do not come from the file.
 */
export function fitsIn(file: TensorFile, drawn: readonly string[] = []): (plan: AdapterPlan) => void {
  return ({ factors, replaced }) => {
    const read = [...factors.filter(({ factor }) => !drawn.includes(factor)), ...replaced];
    const needed = read.reduce((sum, { shape }) => sum + product(shape), 0);
    const held = [...file.entries.values()].reduce((sum, { shape }) => sum + product(shape), 0);
    if (needed <= ROOM * held + 1e6) return;
    throw new FormatError({
      file: file.name,
      found: `${held} numbers`,
      expected: `${needed}, as config and model say`,
      hint: "Is this the base model that the adapter was trained on?",
    });
  };
}

/** Opens the tensors in an adapter's directory. Throws FormatError if there are none, or only a pickle. */
export async function openTensors(files: Files): Promise<TensorFile> {
  const source = await files.open(TENSORS_FILE);
  if (source !== null) return openSafetensors(source);
  const pickle = await files.open("adapter_model.bin");
  if (pickle === null) throw missingFile(files, TENSORS_FILE);
  await pickle.close?.();
  throw new FormatError({
    file: files.name,
    found: "adapter_model.bin, a Python pickle",
    expected: TENSORS_FILE,
    hint: "Pickles run code when read and are never read here: in Python, load the adapter and call save_pretrained.",
  });
}

/** The provenance in an adapter's files; empty for the files of other programs. */
export async function readProvenance(files: Files): Promise<Provenance> {
  const source = await files.open(TENSORS_FILE);
  if (source === null) return {};
  const file = await openSafetensors(source);
  try {
    const text = file.metadata.get("tiedlora.provenance");
    const values = text === undefined ? {} : parseJsonObject(text, file.name, 2);
    return Object.fromEntries(
      Object.entries(values).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
    );
  } finally {
    await file.close();
  }
}

/** The parsed adapter_config.json of a directory. Throws FormatError if there is none. */
export async function readAdapterConfig(files: Files): Promise<Record<string, unknown>> {
  const text = await readText(files, CONFIG_FILE);
  if (text === null) throw missingFile(files, CONFIG_FILE);
  return parseJsonObject(text, `${files.name}/${CONFIG_FILE}`);
}

export function missingFile(files: Files, name: string): FormatError {
  return new FormatError({
    file: files.name,
    found: `no ${name}`,
    expected: `an adapter: a directory with ${CONFIG_FILE} and ${TENSORS_FILE}`,
  });
}

function recipeOf(config: Record<string, unknown>, file: string): Recipe {
  const { recipe } = config;
  const valid =
    typeof recipe === "object" &&
    recipe !== null &&
    "method" in recipe &&
    "options" in recipe &&
    typeof recipe.method === "string" &&
    typeof recipe.options === "object" &&
    recipe.options !== null;
  if (!valid)
    throw new FormatError({
      file,
      tensor: "recipe",
      found: describeValue(recipe),
      expected: "{ method, options }",
    });
  return recipe as unknown as Recipe;
}

function checkNames(adapter: Adapter, file: TensorFile): void {
  const wanted = adapter.stateDict();
  const missing = [...wanted.keys()].filter((path) => !file.entries.has(path));
  const unexpected = [...file.entries.keys()].filter((path) => !wanted.has(path));
  if (missing.length > 0 || unexpected.length > 0) {
    throw new FormatError({
      file: file.name,
      found: `${missing.length} tensors missing (${missing.slice(0, 3).join(", ")}), ${unexpected.length} unexpected (${unexpected.slice(0, 3).join(", ")})`,
      expected: `the ${wanted.size} parameters of ${adapter.method.name} on this model`,
      hint: "Is this the base model that the adapter was trained on?",
    });
  }
  for (const [path, parameter] of wanted) {
    const { shape } = file.entries.get(path)!;
    if (shape.length !== parameter.rank || shape.some((size, axis) => size !== parameter.shape[axis])) {
      throw new FormatError({
        file: file.name,
        tensor: path,
        found: `shape [${shape.join(", ")}]`,
        expected: `[${parameter.shape.join(", ")}]`,
      });
    }
  }
}

/** Throws unless the same places are tied as when the adapter was saved. */
function checkAliases(adapter: Adapter, file: TensorFile): void {
  const text = file.metadata.get("tiedlora.aliases");
  if (text === undefined) return;
  const saved = parseJsonObject(text, file.name, 2);
  const here = adapter.aliases();
  const differs = [...new Set([...Object.keys(saved), ...here.keys()])].find(
    (path) => saved[path] !== here.get(path),
  );
  if (differs !== undefined) {
    throw new FormatError({
      file: file.name,
      tensor: differs,
      found: `tied to ${JSON.stringify(saved[differs] ?? null)}`,
      expected: `tied to ${JSON.stringify(here.get(differs) ?? null)}, as the method says`,
    });
  }
}

function restoreTrained(
  adapter: Adapter,
  config: Record<string, unknown>,
  file: string,
  trainable: boolean,
): void {
  const { trained } = config;
  if (!Array.isArray(trained) || !trained.every((path) => typeof path === "string")) {
    throw new FormatError({
      file,
      tensor: "trained",
      found: describeValue(trained),
      expected: "a list of paths",
    });
  }
  for (const [path, parameter] of adapter.stateDict())
    parameter.requiresGrad = trainable && trained.includes(path);
}
