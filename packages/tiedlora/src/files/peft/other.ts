/** Reads and writes peft's files of the kinds in kinds.ts. */
import { concat, decodeTensor, encodeTensor, type Files, FormatError, product, type Shape, type Tensor, type TensorFile, type TypedArray, where, writeSafetensors } from "@tiedlora/core"; // prettier-ignore
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";
import type { Json } from "../../method.ts";
import type { OutputFile } from "../../output-file.ts";
import { CONFIG_FILE, parametersToWrite, type Provenance, seededFactors, TENSORS_FILE } from "../native.ts";
import type { LoadOptions } from "../options.ts";
import { Reader } from "./config.ts";
import type { PeftKind, Stored } from "./kind.ts";
import { KINDS } from "./kinds.ts";
import type { Wanted } from "./keys.ts";
import { peftNormFiles } from "./ln-tuning.ts";
import { seededFields } from "./rand-lora.ts";
import { commonOptions, fill, replacedTensors, withTensors } from "./load.ts";
import { checkNoNorms, checkNoTokens, outputFiles, replacedToWrite } from "./save.ts";

/** Puts an adapter of one of the kinds on a model. */
export async function loadPeftKind(
  model: nn.Module,
  files: Files,
  raw: Readonly<Record<string, unknown>>,
  options: LoadOptions = {},
): Promise<Adapter> {
  const where = `${files.name}/${CONFIG_FILE}`;
  const kind = KINDS[raw["peft_type"] as string]!;
  const fields = new Reader(raw, where);
  const rank = kind.rank === null ? 8 : fields.number(...kind.rank, (n) => Number.isSafeInteger(n) && n >= 1, "an integer of at least 1"); // prettier-ignore
  const dropout = kind.dropout === null ? 0 : fields.dropout(kind.dropout);
  const settings = { rank, dropout, bias: fields.bias(kind.bias) };
  const targets = fields.targets();
  const { common } = commonOptions(model, { ...targets, modules: targets.modules ?? kind.targets ?? null }, settings, where); // prettier-ignore
  const method = declared(() => kind.declare(fields, { ...common, rank }, where), where);
  const seed = kind.seed?.(fields) ?? null;
  const drawn = seed === null ? [] : seededFactors(method);
  return withTensors(files, async (file) =>
    fill(
      model,
      files,
      await withLogits(file),
      method,
      seed === null ? options : { ...options, seed },
      (adapter) => [...storedTensors(adapter, kind, drawn).map(wanted), ...replacedTensors(adapter)],
      drawn,
    ),
  );
}

function declared<T>(work: () => T, file: string): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError({ file, found: (cause as Error).message, expected: "settings of this method" });
  }
}

/**
 * The files of a VB-LoRA adapter as peft writes them with `save_only_topk_weights`: of all logits only the indices of the largest ones and
 * their weights. They are small, and training cannot go on from them, in Python neither. Throws for other methods.
 */
export function peftTopKFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  const { method } = adapter;
  if (method.name !== "vb-lora")
    throw new Error(
      `the format peft-topk holds the largest weights of VB-LoRA, and this adapter is of ${method.name}; export as peft`,
    );
  const k = Number(method.recipe.options["topK"] ?? 2);
  if (k < 2)
    throw new Error(
      "the format peft-topk holds all but the last of topK weights, and topK is 1; export as peft",
    );
  return peftFiles(adapter, provenance, { save_only_topk_weights: true }, (name, tensor) => {
    if (!name.includes("vblora_logits")) return [[name, tensor]];
    const { indices, weights } = largestOf(tensor, k);
    return [
      [name + INDICES, indices],
      [name + WEIGHTS, weights],
    ];
  });
}

/**
 * The files of a RandLoRA adapter as peft's, without its random bases: the config names the seed from which this library draws them. Python's
 * peft draws other numbers, and refuses the name of the seed. Throws for other methods.
 */
export function peftSeedFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  return peftFiles(adapter, provenance, seededFields(adapter));
}

/** The indices of the k largest along the last axis, in falling order, and all but the last of their softmax. */
function largestOf(logits: Tensor, k: number): { readonly indices: Tensor; readonly weights: Tensor } {
  const count = logits.shape.at(-1)!;
  const indices: Tensor[] = [];
  const values: Tensor[] = [];
  let rest: Tensor = logits;
  for (let i = 0; i < k; i++) {
    const at = rest.argmax(-1);
    indices.push(at.unsqueeze(-1));
    values.push(rest.max(-1, { keepdims: true }));
    rest = where(at.oneHot(count, "bool"), -Infinity, rest);
  }
  const weights = concat(values, -1).softmax(-1);
  return { indices: concat(indices, -1), weights: weights.narrow(-1, 0, k - 1) };
}

/** A tensor as one or more tensors of a file. */
type Written = (name: string, tensor: Tensor) => [name: string, tensor: Tensor][];

/** The files of an adapter as peft's own kind of its method. Throws if peft has none, or if it cannot hold the adapter. */
export function peftFiles(
  adapter: Adapter,
  provenance: Provenance = {},
  more: Readonly<Record<string, Json>> = {},
  written: Written = (name, tensor) => [[name, tensor]],
): OutputFile[] {
  const { method, plan } = adapter;
  if (method.name === "norm-tuning") return peftNormFiles(adapter, provenance);
  const found = Object.entries(KINDS).find(([, one]) => one.method === method.name);
  if (found === undefined) {
    const names = [...Object.values(KINDS).map((one) => one.method), "norm-tuning"];
    throw new Error(
      `peft has no kind of its own for ${method.name} that this library writes, only for ${names.join(", ")}; export as peft-lora, or natively`,
    );
  }
  checkNoNorms(adapter);
  checkNoTokens(adapter);
  const group = plan.sites.find(({ site }) => site.members.length > 1)?.site;
  if (group !== undefined)
    throw new Error(
      `${group.path} is adapted as one target of ${group.members.length} modules, and peft adapts each by itself; declare the method with a target of names, such as ["q_proj", "v_proj"]`,
    );
  if (method.bias === "others")
    throw new Error(
      `peft cannot train the biases of other modules alone; declare the method with another bias`,
    );
  const [type, kind] = found;
  const left = more["save_projection"] === false ? seededFactors(method) : [];
  const tensors = storedTensors(adapter, kind, left).flatMap(({ name, shape, parameter, write }) =>
    written(name, write?.() ?? parameter.reshape(shape)),
  );
  if (kind.unnamed) return promptFiles(provenance, tensors, { peft_type: type, ...kind.fields(adapter) });
  return outputFiles(adapter, provenance, [...tensors, ...replacedToWrite(adapter)], {
    peft_type: type,
    bias: method.bias === "adapted" ? kind.bias : method.bias,
    ...(kind.dropout !== null && { [kind.dropout]: method.dropout }),
    ...kind.fields(adapter),
    ...more,
  });
}

/** The files of a prompt, whose config knows no modules. */
function promptFiles(
  provenance: Provenance,
  tensors: readonly [string, Tensor][],
  fields: Readonly<Record<string, Json>>,
): OutputFile[] {
  const config = {
    ...fields,
    task_type: "CAUSAL_LM",
    base_model_name_or_path: provenance["base_model"] ?? null,
    inference_mode: true,
  };
  return [
    [TENSORS_FILE, writeSafetensors(parametersToWrite(tensors), [["format", "pt"], ["tiedlora.provenance", JSON.stringify(provenance)]])], // prettier-ignore
    [CONFIG_FILE, `${JSON.stringify(config, null, 2)}\n`],
  ];
}

/** The tensors of an adapter in a file, but for those of the factors in `left`. */
function storedTensors(adapter: Adapter, kind: PeftKind, left: readonly string[]): readonly Stored[] {
  const layers = [...adapter.layers()].map(([, layer]): AdapterLayer => layer);
  const all = [...kind.tensors(null, adapter), ...layers.flatMap((layer) => kind.tensors(layer, adapter))];
  if (left.length === 0) return all;
  const absent = new Set(adapter.select({ factors: left }));
  return all.filter(({ parameter }) => !absent.has(parameter));
}

function wanted({ name, shape, parameter, read, set }: Stored): Wanted {
  return { names: [name], shape, set: set ?? ((values) => parameter.set(read?.(values) ?? values)) };
}

const INDICES = "_topk_indices";
const WEIGHTS = "_topk_weights";
/** A logit whose softmax is 0. */
const NEVER = -1e30;

/**
 * A file of VB-LoRA that holds only the indices of the k largest logits and all but the last of their weights, as if it held logits:
 * the logarithms of the weights, and for all other vectors a logit that never counts.
 */
async function withLogits(file: TensorFile): Promise<TensorFile> {
  const names = [...file.entries.keys()].filter((name) => name.endsWith(INDICES));
  const bank = [...file.entries].find(([name]) => name.includes("vblora_vector_bank"))?.[1].shape[0];
  if (names.length === 0 || bank === undefined) return file;
  const entries = new Map(file.entries);
  const logits = new Map<string, Uint8Array>();
  let held = 0;
  for (const name of names) {
    const base = name.slice(0, -INDICES.length);
    const { shape } = file.entries.get(name)!;
    held += product(shape.slice(0, -1)) * bank;
    if (held > MOST)
      throw new FormatError({ file: file.name, found: `${held} logits`, expected: `at most ${MOST} of an adapter with a bank of ${bank} vectors` }); // prettier-ignore
    const bytes = encodeTensor("f32", await logitsOf(file, base, shape, bank));
    logits.set(base, bytes);
    entries.delete(name);
    entries.delete(base + WEIGHTS);
    entries.set(base, { dtype: "F32", shape: [...shape.slice(0, -1), bank], begin: 0, end: bytes.length });
  }
  const read: TensorFile["read"] = async (name) => {
    const bytes = logits.get(name);
    return bytes === undefined ? file.read(name) : { dtype: "F32", shape: entries.get(name)!.shape, bytes };
  };
  return { ...file, entries, read };
}

/** The most logits that are made of the weights in a file. */
const MOST = 2 ** 27;

/** The logits [rows, count] of one tensor, from the indices and weights of its largest ones. */
async function logitsOf(file: TensorFile, base: string, shape: Shape, count: number): Promise<Float32Array> {
  const name = base + INDICES;
  const valuesOf = async (one: string): Promise<TypedArray> =>
    decodeTensor(await file.read(one), file.name, one).values;
  const [indices, weights] = [await valuesOf(name), await valuesOf(base + WEIGHTS)];
  const [rows, k] = [product(shape.slice(0, -1)), shape.at(-1) ?? 0];
  const fail = (found: string, expected: string): never => {
    throw new FormatError({ file: file.name, tensor: name, found, expected });
  };
  if (weights.length !== rows * (k - 1)) fail(`${k} indices and ${weights.length / rows} weights in a row`, "one weight less than indices"); // prettier-ignore
  const values = new Float32Array(rows * count).fill(NEVER);
  for (let row = 0; row < rows; row++) {
    let rest = 1;
    for (let i = 0; i < k; i++) {
      const at = indices[row * k + i]!;
      if (!(at >= 0 && at < count)) fail(`the index ${at}`, `indices below ${count}, the number of vectors`);
      const weight = i < k - 1 ? weights[row * (k - 1) + i]! : rest;
      rest -= weight;
      values[row * count + at] = Math.max(NEVER, Math.log(Math.max(weight, 0)));
    }
  }
  return values;
}
