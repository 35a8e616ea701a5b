/** Names of tensors in peft's files, and how they are matched with the parameters of an adapter. */
import { decodeF32, FormatError, sameShape, type Shape, type TensorFile } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";

export const PREFIX = "base_model.model.";

/** Patterns of peft's tensor names -> names in published files, which lack the adapter's name that raw state dicts include. */
const SHAPES_OF_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^(.*\.lora_[AB])\.(?:[^.]+\.)?(weight|bias)$/, "$1.$2"],
  [/^(.*\.lora_embedding_[AB])(?:\.[^.]+)?$/, "$1"],
  [/^(.*\.lora_magnitude_vector)(?:\.[^.]+)?(?:\.weight)?$/, "$1"],
  [/^(.*\.token_adapter\.trainable_tokens_delta)(?:\.[^.]+)?$/, "$1"],
  [/^(.*\.vera_lambda_[bd])(?:\.[^.]+)?$/, "$1"],
  [/^base_model\.(?:model\.)?(vera_[AB])(?:\.[^.]+)?$/, "base_model.$1"],
  [/^(.*)\.modules_to_save\.[^.]+\.(weight|bias)$/, "$1.$2"],
];

/** The name of a tensor as in a published file. */
function publishedName(name: string): string {
  for (const [pattern, published] of SHAPES_OF_NAMES) {
    if (pattern.test(name)) return name.replace(pattern, published);
  }
  return name;
}

/** A tensor that an adapter needs from a file. */
export interface Wanted {
  /** The names that the tensor may have in a file; the first is the usual one. */
  readonly names: readonly string[];
  readonly shape: Shape;
  /** Sets the values, row-major; called only after all tensors were found. */
  readonly set: (values: Float32Array) => void;
}

/** The tensor of a file whose values are those of a parameter, unchanged. */
export function into(parameter: nn.Parameter, ...names: readonly string[]): Wanted {
  return { names, shape: parameter.shape, set: (values) => parameter.set(values) };
}

export interface ReadOptions {
  /** Whether a missing or unexpected tensor is an error. Default: true. */
  readonly strict?: boolean;
  /** Whether a tensor of this name may be in the file without being read. */
  readonly ignored?: (name: string) => boolean;
}

/**
 * Sets parameters from a file. Checks names and shapes before it sets any. Throws FormatError for tensors that are missing or
 * unexpected (unless `strict` is false), and for tensors of another shape, or if all are missing (always).
 */
export async function readInto(
  file: TensorFile,
  wanted: readonly Wanted[],
  { strict = true, ignored = () => false }: ReadOptions = {},
): Promise<void> {
  const stored = namesInFile(file);
  const matched = wanted.map((one) => ({ ...one, found: one.names.find((name) => stored.has(name)) }));
  const used = new Set(matched.map(({ found }) => found));
  const missing = matched.filter(({ found }) => found === undefined).map(({ names }) => names[0]!);
  const unexpected = [...stored.keys()].filter((name) => !used.has(name) && !ignored(name));
  if (strict && missing.length + unexpected.length > 0)
    throw mismatch(file, wanted.length, missing, unexpected);
  if (missing.length === wanted.length) throw mismatch(file, wanted.length, missing, unexpected);
  const present = matched.filter((one) => one.found !== undefined);
  for (const { found, shape } of present) checkShape(file, stored.get(found!)!, shape);
  for (const { found, set } of present) {
    const name = stored.get(found!)!;
    set(decodeF32(await file.read(name), file.name, name));
  }
}

/** Published name -> name in the file. */
function namesInFile(file: TensorFile): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of file.entries.keys()) {
    const published = publishedName(name);
    const other = names.get(published);
    if (other !== undefined) {
      throw new FormatError({
        file: file.name,
        tensor: name,
        found: `${other} as well`,
        expected: "the tensors of one adapter",
        hint: "Save each adapter on its own, with save_pretrained in Python.",
      });
    }
    names.set(published, name);
  }
  return names;
}

/** Throws FormatError unless the file has a tensor of this name and shape. */
function checkShape(file: TensorFile, name: string, wanted: Shape): void {
  const entry = file.entries.get(name);
  if (entry === undefined)
    throw new FormatError({ file: file.name, tensor: name, found: "no such tensor", expected: `one of shape [${wanted.join(", ")}]` }); // prettier-ignore
  const { shape } = entry;
  if (sameShape(shape, wanted)) return;
  throw new FormatError({
    file: file.name,
    tensor: name,
    found: `shape [${shape.join(", ")}]`,
    expected: `[${wanted.join(", ")}]`,
  });
}

function mismatch(
  file: TensorFile,
  count: number,
  missing: readonly string[],
  unexpected: readonly string[],
): FormatError {
  const some = (list: readonly string[]): string =>
    list.slice(0, 3).join(", ") + (list.length > 3 ? `, and ${list.length - 3} more` : "");
  const parts = [
    ...(missing.length > 0 ? [`${missing.length} missing: ${some(missing)}`] : []),
    ...(unexpected.length > 0 ? [`${unexpected.length} unexpected: ${some(unexpected)}`] : []),
  ];
  return new FormatError({
    file: file.name,
    tensor: missing[0] ?? unexpected[0],
    found: `tensors that do not fit the config and the model (${parts.join("; ")})`,
    expected: `exactly the ${count} tensors of this adapter`,
    hint: "Is this the base model that the adapter was trained on? { strict: false } loads what fits.",
  });
}
