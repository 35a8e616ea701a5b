/**
 * Packs a tied adapter into VeRA's single pair A, B. VeRA has one pair for all modules, and each module uses the leading rows of B.
 * An adapter may have several pairs (one for each type of module), or modules that use later rows (keys and values of a fused
 * group). Each such part becomes a block: the blocks of A are concatenated along the rows, those of B along the columns, and a
 * module's u is zero outside its own block. This only adds zeros to sums, so their bits do not change.
 */
import { concat, ones, type Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import { scaled } from "../../method.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";

/** The largest size of a VeRA file, as a multiple of plain LoRA's: each block adds its rank to the u of all modules. */
const MAX_GROWTH = 4;

export interface PackedVectors {
  readonly path: string;
  /** [sum of the ranks of all blocks] */
  readonly u: Tensor;
  /** [out], multiplied by the scale. */
  readonly v: Tensor;
}

/** The key in a file's metadata under which the blocks are listed. */
export const BLOCKS = "tiedlora.blocks";

/** One block, as listed in the metadata. */
export interface PackedBlock {
  /** Blocks with the same number share one A. */
  readonly a: number;
  readonly rank: number;
  readonly modules: readonly string[];
}

export interface Packed {
  readonly A: Tensor;
  readonly B: Tensor;
  readonly vectors: readonly PackedVectors[];
  readonly blocks: readonly PackedBlock[];
}

interface Block {
  readonly A: nn.Parameter;
  readonly B: nn.Parameter;
  /** The first row of B that its modules use. */
  readonly offset: number;
  /** The number of rows that the largest of its modules uses. */
  rows: number;
}

/** Packs an adapter. Throws for methods outside the Tied-LoRA family, and if VeRA would have over 4 times LoRA's elements. */
export function packTied(adapter: Adapter): Packed {
  const { method } = adapter;
  if (method.recipe.method !== "tied-lora") {
    throw new Error(
      `${method.name} is not of the Tied-LoRA family (A, B, u, v), so peft's VeRA cannot hold it; export it as peft-lora`,
    );
  }
  const layers = [...adapter.layers()].map(([, layer]) => layer);
  const blocks: Block[] = [];
  const blockOf = new Map(layers.map((layer) => [layer, findBlock(blocks, layer)]));
  const width = Math.max(...blocks.map(({ A }) => A.shape[1]!));
  const height = Math.max(...blocks.map(({ rows }) => rows));
  const A = concat(blocks.map((block) => pad(block.A, 1, 0, width - block.A.shape[1]!)));
  const B = concat(
    blocks.map((block) => pad(rowsOf(block.B, block.offset, block.rows), 0, 0, height - block.rows)),
    1,
  );
  checkSize(adapter, layers, A, B);
  const before = new Map(blocks.map((block, i) => [block, rankOf(blocks.slice(0, i))]));
  const vectors = layers.map((layer): PackedVectors => {
    const block = blockOf.get(layer)!;
    const { u, v } = vectorsOf(layer);
    const start = before.get(block)!;
    const rank = block.A.shape[0]!;
    return { path: layer.member.path, u: pad(u, 0, start, A.shape[0]! - start - rank), v };
  });
  const shared = [...new Set(blocks.map((block) => block.A))];
  return {
    A,
    B,
    vectors,
    blocks: blocks.map((block) => ({
      a: shared.indexOf(block.A),
      rank: block.A.shape[0]!,
      modules: layers.filter((layer) => blockOf.get(layer) === block).map(({ member }) => member.path),
    })),
  };
}

const rankOf = (blocks: readonly Block[]): number => blocks.reduce((sum, { A }) => sum + A.shape[0]!, 0);

function findBlock(blocks: Block[], layer: AdapterLayer): Block {
  const [A, B] = [layer.parameter("A")!, layer.parameter("B")!];
  const { offset, out } = layer.member;
  let block = blocks.find((one) => one.A === A && one.B === B && one.offset === offset);
  if (block === undefined) blocks.push((block = { A, B, offset, rows: out }));
  block.rows = Math.max(block.rows, out);
  return block;
}

/** A module's own u and s · v; vectors of ones if the method has no u or v. The scale is in v, as in the forward formula. */
function vectorsOf(layer: AdapterLayer): { u: Tensor; v: Tensor } {
  const { offset, out } = layer.member;
  const { u, v } = layer.factors(offset, out);
  return { u: u ?? ones([layer.parameter("A")!.shape[0]!]), v: scaled(v ?? ones([out]), layer.scale) };
}

function rowsOf(B: Tensor, offset: number, rows: number): Tensor {
  return offset === 0 && rows === B.shape[0] ? B : B.narrow(0, offset, rows);
}

/** Pads a tensor with zeros before and after, along one axis. */
function pad(t: Tensor, axis: number, before: number, after: number): Tensor {
  if (before === 0 && after === 0) return t;
  return t.pad(t.shape.map((_, i) => (i === axis ? [before, after] : [0, 0])));
}

function checkSize({ method }: Adapter, layers: readonly AdapterLayer[], A: Tensor, B: Tensor): void {
  const rank = A.shape[0]!;
  const vera = A.size + B.size + layers.reduce((sum, { member }) => sum + rank + member.out, 0);
  const lora = layers.reduce((sum, { member, plan }) => sum + plan.dims.rank * (member.in + member.out), 0);
  if (vera <= MAX_GROWTH * lora) return;
  throw new Error(
    `${method.name} shares too little for VeRA, which holds one A and B for all modules: ${vera} numbers, where LoRA takes ${lora}; export it as peft-lora`,
  );
}
