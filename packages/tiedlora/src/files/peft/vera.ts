/**
 * A tied adapter as VeRA's one pair A, B. VeRA has one pair for all modules, and each uses the leading rows of B; an adapter
 * may have several pairs (one a type of module), or modules that use later rows (keys and values of a fused group). Each of
 * these parts becomes a block: the blocks of A stand under each other, those of B side by side, and a module's u is zero
 * outside its own block. That adds zeros to sums, and changes no bit of them.
 */
import { concat, ones, type Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import { scaled } from "../../method.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";

/** How much larger than plain LoRA a VeRA file may be. Every part that is not shared costs all modules its rank. */
const MAX_GROWTH = 4;

export interface PackedVectors {
  readonly path: string;
  /** [rank of all blocks] */
  readonly u: Tensor;
  /** [out], with the scale in it. */
  readonly v: Tensor;
}

/** Where the metadata of a file lists the parts. */
export const BLOCKS = "tiedlora.blocks";

/** One part, as the metadata lists it. */
export interface PackedBlock {
  /** Parts with the same number have one A. */
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
  /** The first row of B that its modules use, and how many the largest of them uses. */
  readonly offset: number;
  rows: number;
}

/** Throws for methods that are not of the family, and where VeRA would take more room than plain LoRA. */
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

/** A module's own u and s · v; ones where the method has none. The scale is in v, as where the module computes. */
function vectorsOf(layer: AdapterLayer): { u: Tensor; v: Tensor } {
  const { offset, out } = layer.member;
  const { u, v } = layer.factors(offset, out);
  return { u: u ?? ones([layer.parameter("A")!.shape[0]!]), v: scaled(v ?? ones([out]), layer.scale) };
}

function rowsOf(B: Tensor, offset: number, rows: number): Tensor {
  return offset === 0 && rows === B.shape[0] ? B : B.narrow(0, offset, rows);
}

/** Zeros before and after along an axis. */
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
