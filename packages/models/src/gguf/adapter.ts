/**
 * An adapter as the GGUF file that llama.cpp applies to a model of its own (`--lora`): the two factors of each matrix under the name
 * that the matrix has there, with the rows of queries and keys in its order. What llama.cpp adds is alpha / rank · B A.
 */
import { FormatError } from "@tiedlora/core";
import type { DecoderConfig } from "../config.ts";
import { architectureFor, ggufNameOf, interleavedRows, type Place } from "./architecture.ts";
import { GgufWriter } from "./writer.ts";

/** The update scale · B A of one module. */
export interface LoraUpdate {
  /** The path of the module, e.g. "model.layers.0.self_attn.q_proj". */
  readonly path: string;
  readonly rank: number;
  /** [rank, in] */
  readonly A: Float32Array;
  /** [out, rank] */
  readonly B: Float32Array;
  readonly scale: number;
}

/**
 * The bytes of a GGUF file with the updates, in f32. All have one alpha: that of the first; where another module's scale differs from
 * alpha / rank, its B is multiplied. Throws FormatError for a model that llama.cpp's converter does not know as one of ours, and for
 * modules whose matrices it does not have by themselves.
 */
export function ggufAdapter(config: DecoderConfig, updates: readonly LoraUpdate[], name: string): Uint8Array {
  const architecture = architectureFor(config.modelType);
  const alpha = Math.fround(updates[0]!.scale * updates[0]!.rank);
  const writer = new GgufWriter();
  writer.text("general.architecture", architecture.name);
  writer.text("general.type", "adapter");
  writer.text("general.name", name);
  writer.u32("general.file_type", 0); // all in f32
  writer.text("adapter.type", "lora");
  writer.f32("adapter.lora.alpha", alpha);
  for (const update of updates) {
    const place = placeIn(config, update.path);
    const rows = architecture.interleaved ? headsOf(place, config) : 0;
    const factor = (update.scale * update.rank) / alpha;
    const { A, shapeA } = firstFactor(update, place);
    const B = secondFactor(update, rows, factor);
    writer.tensor(`${place.name}.lora_a`, shapeA, A);
    writer.tensor(`${place.name}.lora_b`, [B.length / update.rank, update.rank], B);
  }
  return writer.bytes();
}

interface NamedPlace {
  readonly name: string;
  readonly role: Place["role"];
}

function placeIn(config: DecoderConfig, path: string): NamedPlace {
  const found = ggufNameOf(path, config.modelType);
  if (found !== null && !(config.tied && found.name === "output.weight")) return found;
  throw new FormatError({
    file: "the adapter",
    tensor: path,
    found:
      found === null
        ? "a module whose matrix a GGUF file does not have by itself"
        : "a head that has the weight of the input embedding, which a GGUF file stores once",
    expected: "modules with a matrix of their own there",
    hint: "Merge the adapter into the model (tiedlora merge), and convert the model with llama.cpp's convert_hf_to_gguf.py.",
  });
}

const headsOf = ({ role }: NamedPlace, { heads, kvHeads }: DecoderConfig): number =>
  role === "q" ? heads : role === "k" ? kvHeads : 0;

/** A [rank, in]; that of an embedding is transposed, since llama.cpp takes rows of it by token. */
function firstFactor({ A, rank }: LoraUpdate, { name }: NamedPlace): { A: Float32Array; shapeA: number[] } {
  const inputs = A.length / rank;
  if (name !== "token_embd.weight") return { A, shapeA: [rank, inputs] };
  const turned = A.map((_, i) => A[(i % rank) * inputs + Math.floor(i / rank)]!);
  return { A: turned, shapeA: [inputs, rank] };
}

/** B [out, rank] times a factor; with heads, its rows in llama.cpp's order. */
function secondFactor({ B, rank }: LoraUpdate, heads: number, factor: number): Float32Array {
  const scaled = factor === 1 ? B : B.map((value) => value * factor);
  if (heads === 0) return scaled;
  const moved = new Float32Array(B.length);
  for (const [row, to] of interleavedRows(B.length / rank, heads).entries())
    moved.set(scaled.subarray(row * rank, (row + 1) * rank), to * rank);
  return moved;
}
