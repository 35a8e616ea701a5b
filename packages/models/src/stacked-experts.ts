/**
 * The experts of a layer as stacks of matrices. Transformers 5 computes with such, and can write them: gate_up_proj [experts, 2 · width,
 * hidden], of each expert first the gate, then up; and down_proj [experts, hidden, width]. MLX writes a stack for each of gate_proj,
 * up_proj and down_proj, or three if they are quantized: codes, scales and biases. The model itself has the matrices of single experts.
 */
import { FormatError, type TensorData, type TensorEntry, type TensorFile, type TensorToWrite } from "@tiedlora/core"; // prettier-ignore
import { ARCHITECTURES } from "./architectures.ts";
import type { DecoderConfig } from "./config.ts";
import { decoderSpec } from "./modules.ts";
import { MLX_PARTS, mlxStackOf } from "./quantized/mlx.ts";

interface Stack {
  readonly name: string;
  readonly shape: readonly number[];
  /** The shape and the names of the single matrices, in the order in which they lie in the stack. */
  readonly memberShape: readonly number[];
  readonly members: readonly string[];
}

function stacksOf(config: DecoderConfig): Stack[] {
  const { names } = ARCHITECTURES[config.modelType];
  const { hidden, experts } = config;
  if (experts === null) return [];
  const { count, width } = experts;
  const weights = (specs: readonly { readonly path: string }[]): string[] => specs.map(({ path }) => `${path}.weight`); // prettier-ignore
  return decoderSpec(config).layers.flatMap(({ router, mlps }, i): Stack[] => {
    if (router === null) return [];
    const at = `${names.base}.${names.layers}.${i}.${names.experts}`;
    return [
      {
        name: `${at}.gate_up_proj`,
        shape: [count, 2 * width, hidden],
        memberShape: [width, hidden],
        members: weights(mlps.flatMap(({ gate, up }) => [gate!, up])),
      },
      {
        name: `${at}.down_proj`,
        shape: [count, hidden, width],
        memberShape: [hidden, width],
        members: weights(mlps.map(({ down }) => down)),
      },
    ];
  });
}

/** The stacks of a file of MLX. Of quantized ones, what lies along a row depends on bits and groups, and is checked with them. */
function mlxStacksOf(config: DecoderConfig, file: TensorFile): Stack[] {
  return decoderSpec(config).layers.flatMap(({ router, mlps }): Stack[] => {
    if (router === null) return [];
    return (["gate", "up", "down"] as const).flatMap((which) => {
      const single = mlps.map((mlp) => mlp[which]!);
      const { path, in: inputs, out } = single[0]!;
      return ["weight", ...MLX_PARTS].flatMap((part): Stack[] => {
        const name = `${mlxStackOf(path)}.${part}`;
        const entry = file.entries.get(name);
        if (entry === undefined) return [];
        const isPlain = part === "weight" && entry.dtype !== "U32";
        const memberShape = [out, isPlain ? inputs : (entry.shape[2] ?? inputs)];
        const shape = [single.length, ...memberShape];
        return [{ name, shape, memberShape, members: single.map((one) => `${one.path}.${part}`) }];
      });
    });
  });
}

/** Where a matrix lies in a stack of the file. */
interface Place {
  readonly stack: string;
  readonly offset: number;
}

/**
 * The file with its stacks presented as the matrices of single experts. A file without stacks is returned as it is. Throws FormatError
 * for a stack of another shape than the config says.
 */
export function unstacked(config: DecoderConfig, file: TensorFile): TensorFile {
  const places = new Map<string, Place>();
  const entries = new Map(file.entries);
  for (const stack of [...stacksOf(config), ...mlxStacksOf(config, file)]) {
    const entry = file.entries.get(stack.name);
    // Where the file holds single matrices as well, the stack stays an unexpected tensor.
    if (entry === undefined || stack.members.some((name) => entries.has(name))) continue;
    checkShape(file, stack, entry);
    entries.delete(stack.name);
    const { dtype, begin, end } = entry;
    const size = (end - begin) / stack.members.length;
    for (const [i, name] of stack.members.entries()) {
      const from = begin + i * size;
      entries.set(name, { dtype, shape: stack.memberShape, begin: from, end: from + size });
      places.set(name, { stack: stack.name, offset: i * size });
    }
  }
  return places.size === 0 ? file : viewOf(file, entries, places);
}

function checkShape(file: TensorFile, { name, shape }: Stack, entry: TensorEntry): void {
  if (entry.shape.length === shape.length && entry.shape.every((n, axis) => n === shape[axis])) return;
  throw new FormatError({
    file: file.name,
    tensor: name,
    found: `shape [${entry.shape.join(", ")}]`,
    expected: `[${shape.join(", ")}], by config.json: all experts of a layer, each as [out, in]`,
  });
}

function viewOf(
  file: TensorFile,
  entries: ReadonlyMap<string, TensorEntry>,
  places: ReadonlyMap<string, Place>,
): TensorFile {
  /** The tensor of the file that holds bytes of a matrix, and where they begin in it. */
  const find = (name: string, offset: number, length: number): [tensor: string, offset: number] => {
    const place = places.get(name);
    if (place === undefined) return [name, offset];
    const { begin, end } = entries.get(name)!;
    if (offset >= 0 && length >= 0 && offset + length <= end - begin)
      return [place.stack, place.offset + offset];
    throw new RangeError(`${name}: bytes ${offset}..${offset + length} of a matrix of ${end - begin} bytes`);
  };
  const readBytes: TensorFile["readBytes"] = async (name, offset, length) =>
    file.readBytes(...find(name, offset, length), length);
  return {
    name: file.name,
    metadata: file.metadata,
    entries,
    readBytes,
    read: async (name): Promise<TensorData> => {
      if (!places.has(name)) return file.read(name);
      const { dtype, shape, begin, end } = entries.get(name)!;
      return { dtype, shape, bytes: await readBytes(name, 0, end - begin) };
    },
    readInto: async (name, offset, target) => file.readInto(...find(name, offset, target.byteLength), target),
    stamp: (name) => file.stamp(places.get(name)?.stack ?? name),
    close: () => file.close(),
  };
}

/** The tensors with the matrices of experts stacked. Throws if the matrices of a stack are to be written in different types. */
export function stacked(config: DecoderConfig, tensors: readonly TensorToWrite[]): TensorToWrite[] {
  const single = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const stacks = stacksOf(config).map(({ name, shape, members }): TensorToWrite => {
    const parts = members.map((member) => single.get(member)!);
    for (const member of members) single.delete(member);
    const { dtype } = parts[0]!;
    const other = parts.find((part) => part.dtype !== dtype);
    if (other !== undefined)
      throw new Error(
        `${name} cannot be stacked: ${parts[0]!.name} is ${dtype}, and ${other.name} is ${other.dtype}; give the dtype of all weights`,
      );
    return { name, dtype, shape, bytes: () => joined(parts) };
  });
  return [...single.values(), ...stacks];
}

async function joined(parts: readonly TensorToWrite[]): Promise<Uint8Array> {
  let all: Uint8Array | null = null;
  for (const [i, part] of parts.entries()) {
    const bytes = await part.bytes();
    all ??= new Uint8Array(bytes.byteLength * parts.length);
    all.set(bytes, i * bytes.byteLength);
  }
  return all!;
}
