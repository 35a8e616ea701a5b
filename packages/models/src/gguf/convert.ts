/**
 * A GGUF file as the files of a Hugging Face directory. Q8_0, Q4_* and Q5_* keep their numbers, as MLX writes quantized models; Q6_K
 * becomes f16; the rest stays as it is. One tensor at a time is in memory.
 */
import {
  encode,
  encodeTensor,
  FILE_OF_DTYPE,
  FormatError,
  type Source,
  type TensorToWrite,
} from "@tiedlora/core";
import { configFrom, configToJson, type DecoderConfig, type StoredDType } from "../config.ts";
import { parameterSpecs } from "../modules.ts";
import { type OutputFile, weightFiles } from "../save.ts";
import { conversionOf, EXPERT, interleavedRows, type Place, placeOf, ROPE_FACTORS } from "./architecture.ts";
import { AFFINE_GROUP, affineBlocks, BLOCKS, type BlockType, decodeBlocks } from "./blocks.ts";
import { ggufConfig } from "./config.ts";
import { Metadata } from "./metadata.ts";
import { type GgufFile, type GgufTensor, openGguf } from "./reader.ts";
import { ggufTokenizer } from "./tokenizer.ts";

/** How a GGUF file is converted. */
export interface ConvertOptions {
  /** The precision of all weights, also of those that are quantized in the file. Default: these stay quantized. */
  readonly dtype?: StoredDType;
  /** Files of weights above this are split. Default 5 GB. */
  readonly maxShardBytes?: number;
}

/** A conversion that is ready to be written. */
export interface Converted {
  readonly config: DecoderConfig;
  /** In the order in which they should become visible. Their contents are read from the GGUF file while they are written. */
  readonly files: readonly OutputFile[];
  /** Why there is no tokenizer; null if there is one. */
  readonly noTokenizer: string | null;
  /** The number of matrices by how they are written: "4 bits", "f16". */
  readonly kinds: ReadonlyMap<string, number>;
  /** Closes the GGUF file. */
  close(): Promise<void>;
}

/** A matrix or vector, where it goes, and the heads whose rows must be put in order (0: none). */
interface Move {
  readonly place: Place;
  readonly tensor: GgufTensor;
  readonly name: string;
  readonly heads: number;
  /** What has been added to all numbers in the file. */
  readonly added: number;
}

/**
 * Reads the header of a GGUF file and prepares its conversion. It takes ownership of the source.
 * @throws FormatError for a damaged file, an architecture, a type of blocks or a tensor that is not known, and sizes that do not fit
 */
export async function convertGguf(source: Source, options: ConvertOptions = {}): Promise<Converted> {
  const file = await openGguf(source);
  try {
    return await prepare(file, options);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function prepare(file: GgufFile, options: ConvertOptions): Promise<Converted> {
  const metadata = new Metadata(file);
  const { modelType, interleaved, addedOne } = conversionOf(metadata);
  const factors = new Set<string>(Object.values(ROPE_FACTORS));
  const names = [...file.tensors.keys()].filter((name) => !factors.has(name));
  const raw = ggufConfig(metadata, await seen(file, options.dtype));
  const moves = names.flatMap((name): Move[] => {
    const place = placeOf(name, modelType, file.name);
    const tensor = file.tensors.get(name)!;
    const heads = place.role === "q" ? raw["num_attention_heads"] : raw["num_key_value_heads"];
    const turned = interleaved && (place.role === "q" || place.role === "k");
    const added = addedOne && place.role === "norm" ? 1 : 0;
    const move = { place, name, tensor, heads: turned ? (heads as number) : 0, added };
    return place.role === "experts" ? unstacked(move) : [move];
  });
  const quantized = options.dtype === undefined ? quantizationOf(moves) : null;
  const config = configFrom(quantized === null ? raw : { ...raw, quantization: quantized }, file.name);
  checkShapes(config, moves, file.name);
  const tokenizer = ggufTokenizer(metadata);
  const json = (value: object): string => `${JSON.stringify(value, null, 2)}\n`;
  const files: OutputFile[] = [
    ...(typeof tokenizer === "string"
      ? []
      : ([
          ["tokenizer.json", JSON.stringify(tokenizer.tokenizer)],
          ["tokenizer_config.json", json(tokenizer.config)],
        ] as const)),
    ...weightFiles(
      moves.flatMap((move) => written(move, file, options.dtype)),
      options.maxShardBytes,
    ),
    ["config.json", configToJson(config)],
  ];
  return {
    config,
    files,
    noTokenizer: typeof tokenizer === "string" ? tokenizer : null,
    kinds: kindsOf(moves, options.dtype),
    close: () => file.close(),
  };
}

/** The matrices of a stack, one for each expert. */
function unstacked(move: Move): Move[] {
  const { place, tensor } = move;
  const [count = 1, ...shape] = tensor.shape;
  const bytes = tensor.bytes / count;
  return Array.from({ length: count }, (_, expert) => ({
    ...move,
    place: { ...place, module: place.module.replace(EXPERT, String(expert)) },
    tensor: { ...tensor, shape, begin: tensor.begin + expert * bytes, bytes },
  }));
}

const DTYPES = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;

async function seen(
  file: GgufFile,
  dtype: StoredDType | undefined,
): Promise<Parameters<typeof ggufConfig>[1]> {
  const embedding = file.tensors.get("token_embd.weight");
  if (embedding === undefined)
    throw new FormatError({ file: file.name, tensor: "token_embd.weight", found: "no such tensor", expected: "the embedding" }); // prettier-ignore
  const numbers = async (name: string): Promise<number[] | null> => {
    const tensor = file.tensors.get(name);
    return tensor === undefined ? null : [...decodeBlocks(tensor.type, await file.read(tensor))];
  };
  const [short, long] = [await numbers(ROPE_FACTORS.short), await numbers(ROPE_FACTORS.long)];
  const types = [...file.tensors.values()].map(({ type }) => type);
  const half = types.includes(30) ? "bf16" : types.every((type) => type === 0) ? "f32" : "f16";
  return {
    file: file.name,
    vocab: embedding.shape[0]!,
    tied: !file.tensors.has("output.weight"),
    qkvBias: file.tensors.has("blk.0.attn_q.bias"),
    ropeFactors: await numbers(ROPE_FACTORS.any),
    longRope: short === null || long === null ? null : { short, long },
    dtype: DTYPES[dtype ?? half],
  };
}

/** Whether a tensor's numbers are kept as codes with scales and biases. */
const staysQuantized = ({ type, shape }: GgufTensor): boolean =>
  BLOCKS[type].affine !== undefined && shape.length === 2;

/** The config's `quantization`: the most frequent width of codes, and those of modules that have another. */
function quantizationOf(moves: readonly Move[]): Record<string, unknown> | null {
  const widths = moves.filter(({ tensor }) => staysQuantized(tensor)).map(({ place, tensor }) => [place.module, BLOCKS[tensor.type].affine!.bits] as const); // prettier-ignore
  if (widths.length === 0) return null;
  const eights = widths.filter(([, bits]) => bits === 8).length;
  const usual = 2 * eights > widths.length ? 8 : 4;
  const others = widths.filter(([, bits]) => bits !== usual).map(([module, bits]) => [module, { group_size: AFFINE_GROUP, bits }] as const); // prettier-ignore
  return { group_size: AFFINE_GROUP, bits: usual, ...Object.fromEntries(others) };
}

function checkShapes(config: DecoderConfig, moves: readonly Move[], file: string): void {
  const found = new Map(moves.map(({ place, tensor, name }) => [`${place.module}.${place.part}`, { tensor, name }])); // prettier-ignore
  for (const { path, shape } of parameterSpecs(config)) {
    const one = found.get(path);
    if (one === undefined)
      throw new FormatError({ file, tensor: path, found: "no tensor for it", expected: `the tensors of a ${config.modelType} model` }); // prettier-ignore
    const { tensor, name } = one;
    if (tensor.shape.length !== shape.length || tensor.shape.some((n, axis) => n !== shape[axis]))
      throw new FormatError({ file, tensor: name, found: `shape [${tensor.shape.join(", ")}]`, expected: `[${shape.join(", ")}], by the metadata` }); // prettier-ignore
    found.delete(path);
  }
  for (const { name } of found.values())
    throw new FormatError({ file, tensor: name, found: "a tensor without a use", expected: `the ${parameterSpecs(config).length} tensors of a ${config.modelType} model` }); // prettier-ignore
}

function kindsOf(moves: readonly Move[], dtype: StoredDType | undefined): Map<string, number> {
  const kinds = new Map<string, number>();
  for (const { tensor } of moves) {
    if (tensor.shape.length < 2) continue;
    const kind = dtype === undefined && staysQuantized(tensor) ? `${BLOCKS[tensor.type].affine!.bits} bits` : (dtype ?? plainDType(tensor.type)); // prettier-ignore
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
}

const plainDType = (type: BlockType): StoredDType => (type === 0 ? "f32" : type === 30 ? "bf16" : "f16");

/** The tensors that are written for one of the file. */
function written(move: Move, file: GgufFile, dtype: StoredDType | undefined): TensorToWrite[] {
  const { place, tensor, added } = move;
  const path = `${place.module}.${place.part}`;
  if (dtype === undefined && staysQuantized(tensor)) return affineTensors(move, file);
  const own = plainDType(tensor.type);
  // Vectors stay in the precision that they have: those of norms are f32 in every file.
  const to = tensor.shape.length < 2 ? own : (dtype ?? own);
  const bytes = async (): Promise<Uint8Array> => {
    const stored = await ordered(move, file);
    if (to === own && added === 0 && BLOCKS[tensor.type].elements === 1) return stored;
    const values = decodeBlocks(tensor.type, stored).map((value) => value - added);
    return encodeTensor(to, encode(finite(values, move, file.name, to), to));
  };
  return [{ name: path, dtype: FILE_OF_DTYPE[to], shape: tensor.shape, bytes }];
}

/** As MLX writes a quantized module. */
function affineTensors(move: Move, file: GgufFile): TensorToWrite[] {
  const { place, tensor } = move;
  const [rows, inputs] = tensor.shape as readonly [number, number];
  const { bits, half } = BLOCKS[tensor.type].affine!;
  const dtype = half ? "f16" : "f32";
  const groups = [rows, inputs / AFFINE_GROUP];
  const read = async (): Promise<ReturnType<typeof affineBlocks>> =>
    affineBlocks(tensor.type, await ordered(move, file));
  const numbers = (values: Float32Array): Uint8Array =>
    encodeTensor(dtype, encode(finite(values, move, file.name, dtype), dtype));
  return [
    {
      name: `${place.module}.weight`,
      dtype: "U32",
      shape: [rows, (inputs * bits) / 32],
      bytes: async () => new Uint8Array((await read()).words.buffer),
    },
    { name: `${place.module}.scales`, dtype: FILE_OF_DTYPE[dtype], shape: groups, bytes: async () => numbers((await read()).scales) }, // prettier-ignore
    { name: `${place.module}.biases`, dtype: FILE_OF_DTYPE[dtype], shape: groups, bytes: async () => numbers((await read()).biases) }, // prettier-ignore
  ];
}

/** Throws FormatError for a number that is not finite, or would not be in `dtype`. */
function finite(values: Float32Array, move: Move, file: string, dtype: StoredDType): Float32Array {
  const most = dtype === "f16" ? 65_504 : 3.3895e38;
  const wrong = values.find((value) => !(Math.abs(value) <= most));
  if (wrong === undefined) return values;
  throw new FormatError({
    file,
    tensor: move.name,
    found: String(wrong),
    expected: `finite numbers that ${dtype} can hold`,
    hint: Number.isFinite(wrong) ? "Give --dtype f32." : "The file is damaged.",
  });
}

/** The bytes of a tensor, with the rows of queries and keys in our order. */
async function ordered({ tensor, heads }: Move, file: GgufFile): Promise<Uint8Array> {
  const bytes = await file.read(tensor);
  if (heads === 0) return bytes;
  const rows = tensor.shape[0]!;
  const width = bytes.byteLength / rows;
  const turned = new Uint8Array(bytes.byteLength);
  for (const [row, from] of interleavedRows(rows, heads).entries())
    turned.set(bytes.subarray(from * width, (from + 1) * width), row * width);
  return turned;
}
