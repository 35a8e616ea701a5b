/**
 * The native adapter format: a directory with `adapter_model.safetensors`, which holds each tied factor once, under the path of its
 * first place, and `adapter_config.json`, from which the method is declared again. The other places of tied factors and the
 * adapter's provenance are in the metadata of the tensors' file. Python's peft cannot read it: export to one of peft's formats.
 */
import type { OutputFile } from "../output-file.ts";
import {
  describeValue,
  decodeF32,
  decodeTensor,
  encodeTensor,
  FILE_OF_DTYPE,
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
import type { Factor, Json, Method, Recipe } from "../method.ts";
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
    ...(method.seeded && { seed: adapter.seed }),
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
    [TENSORS_FILE, writeSafetensors(parametersToWrite(storedParameters(adapter)), Object.entries(metadata))],
    [CONFIG_FILE, `${JSON.stringify(config, null, 2)}\n`],
  ];
}

/** The form to which the weights of a model were quantized while it was loaded, as `quantize` in the provenance; empty if there is none. */
function quantizationOf(model: nn.Module): Provenance {
  const quantized = model.parameters().filter((one) => one instanceof nn.QuantizedParameter);
  const forms = ([["nf4", "nf4"], ["signed", "int8"]] as const).filter(([table]) => quantized.some((one) => one.quantization.table === table)); // prettier-ignore
  return forms.length === 0 ? {} : { quantize: forms.map(([, form]) => form).join("+") };
}

/** The parameters that a file holds, by path: all but those whose values follow from the seed that it names. */
export function storedParameters(adapter: Adapter): Map<string, nn.Parameter> {
  const { drawn } = adapter;
  return new Map([...adapter.stateDict()].filter(([path]) => !drawn.has(path)));
}

/** Tensors to write in f32, or i32, from parameters or other tensors; each is computed and copied from the device when it is written. */
export function parametersToWrite(parameters: Iterable<readonly [string, Tensor]>): TensorToWrite[] {
  return [...parameters].map(([name, tensor]) => {
    const dtype = tensor.dtype === "i32" ? "i32" : "f32";
    const bytes = async (): Promise<Uint8Array> => encodeTensor(dtype, await tensor.data());
    return { name, dtype: FILE_OF_DTYPE[dtype], shape: tensor.shape, bytes };
  });
}

/** The values of a parameter in a file, in the type of the parameter. Throws FormatError for another kind of type. */
export async function readParameter(
  file: TensorFile,
  path: string,
  { dtype }: nn.Parameter,
): Promise<Float32Array | Int32Array> {
  const data = await file.read(path);
  if (dtype !== "i32") return decodeF32(data, file.name, path);
  const { values } = decodeTensor(data, file.name, path);
  if (values instanceof Int32Array) return values;
  throw new FormatError({ file: file.name, tensor: path, found: data.dtype, expected: "I32" });
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
    const declared = {
      ...options,
      blank: true,
      ...(method.seeded && { seed: seedOf(config, where) }),
      check: fitsIn(file, seededFactors(method)),
    };
    const adapter = options.method
      ? createAdapter(model, method, declared)
      : asFileSays(where, "recipe", () => createAdapter(model, method, declared));
    checkNames(adapter, file);
    checkAliases(adapter, file);
    for (const [path, parameter] of storedIn(file, adapter))
      parameter.set(await readParameter(file, path, parameter));
    restoreTrained(adapter, config, where, options.trainable ?? true);
    return adapter.attach(options);
  } finally {
    await file.close();
  }
}

/** The names of the factors that files name by their seed. */
export function seededFactors(method: Method): string[] {
  return Object.entries<Factor>(method.factors).flatMap(([name, { bySeed }]) => (bySeed ? [name] : []));
}

/** The parameters of an adapter that come from a file: all, but of those that follow from the seed only the ones that it holds. */
function storedIn(file: TensorFile, adapter: Adapter): Map<string, nn.Parameter> {
  const { drawn } = adapter;
  return new Map([...adapter.stateDict()].filter(([path]) => !drawn.has(path) || file.entries.has(path)));
}

/** The seed that a config names, for a method whose frozen numbers follow from it. */
function seedOf({ seed }: Record<string, unknown>, file: string): number {
  if (Number.isSafeInteger(seed) && (seed as number) >= 0) return seed as number;
  throw new FormatError({
    file,
    tensor: "seed",
    found: seed === undefined ? "no seed" : describeValue(seed),
    expected: "the seed of the frozen random numbers, which this file does not hold: a whole number from 0",
    hint: "Add the seed that the adapter was made with, as in adapt(model, method, { seed }) or run.yaml; the default is 0.",
  });
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
/** And this many times as many random numbers as it adapts weights, plus a million. */
const SEEDED = 64;

/**
 * Returns a check that throws if an adapter of a plan is far larger than its file: a config must not make its reader allocate
 * memory for values that the file does not hold. `drawn`: factors that do not come from the file.
 */
export function fitsIn(file: TensorFile, drawn: readonly string[] = []): (plan: AdapterPlan) => void {
  return ({ factors, replaced, sites }) => {
    const weights = sites.reduce((sum, { site }) => sum + site.in * site.out, 0);
    const made = factors.filter(({ factor, spec }) => spec.bySeed && drawn.includes(factor));
    const random = made.reduce((sum, { shape }) => sum + product(shape), 0);
    if (random > SEEDED * weights + 1e6)
      throw new FormatError({
        file: file.name,
        found: `a method with ${random} frozen random numbers`,
        expected: `at most ${SEEDED} times the ${weights} weights that it adapts`,
        hint: "Is this the base model that the adapter was trained on?",
      });
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
  const wanted = storedIn(file, adapter);
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
