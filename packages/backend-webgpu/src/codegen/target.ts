/**
 * What rendering depends on: the abilities and limits of one device, and the form of a rendered kernel.
 * Everything in this folder is text generation; nothing here talks to a GPU.
 */
import type { ComputeType } from "@tiedlora/kernels";

/** The type that the factors of a matrix product have when they are multiplied. */
export type MatmulPrecision = "f32" | "f16";

/** A product of matrices, m × k by k × n. */
export interface MatrixShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/**
 * Rows and columns of a tile, how much of the depth is staged at a time, and the number of rows (and of columns) that one
 * invocation computes.
 */
export interface Tile {
  readonly rows: number;
  readonly columns: number;
  readonly depth: number;
  readonly own: number;
}

/** Abilities and limits that the rendered code may rely on. */
export interface Target {
  /** `enable f16` works. Without it, half precision is unpacked from 32-bit words. */
  readonly f16: boolean;
  /** What the factors of a matrix product are rounded to; "f16" needs `f16`. Sums are f32 in either case. */
  readonly matmulPrecision: MatmulPrecision;
  /** Lanes of a subgroup where that is the same for every shader, else 0: subgroup code is not rendered. */
  readonly subgroup: number;
  /** The product that a subgroup computes at once, with f16 factors and f32 sums, if it can; only for `matmulPrecision` "f16". */
  readonly matrix?: MatrixShape | undefined;
  /** The tile of all products, set while it is being measured. */
  readonly tile?: Tile;
  /** By the name of a product's kind: the tile that was measured to be fastest. */
  readonly tiles?: ReadonlyMap<string, Tile>;
  /** Whether code is for an adapter that computes on a CPU: memory instructions and barriers cost far more than arithmetic. */
  readonly software: boolean;
  readonly maxInvocations: number;
  readonly maxWorkgroupBytes: number;
  readonly maxGroupsPerDimension: number;
  /** Storage buffers that one kernel may bind. */
  readonly maxBindings: number;
  /** The largest part of a buffer that one binding can show. */
  readonly maxBindingBytes: number;
  readonly offsetAlignment: number;
}

/** A part of one of the program's buffers, bound as one storage buffer. */
export interface Binding {
  readonly buffer: number;
  readonly write: boolean;
  readonly offset: number;
  readonly bytes: number;
}

/** A run-time number that a kernel reads, in the order of the words after the uniform's header. */
export interface ScalarUse {
  readonly slot: number;
  readonly dtype: ComputeType;
}

/**
 * One dispatch. The code names bindings by their position and sizes by their place, so that equal layers of a model, and layers that
 * differ in lengths alone, render to equal text. After the storage buffers comes one uniform buffer: a header (see `HEADER`), then the
 * scalars, then the sizes.
 */
export interface Kernel {
  readonly label: string;
  readonly code: string;
  readonly bindings: readonly Binding[];
  readonly scalars: readonly ScalarUse[];
  /** The numbers that follow from lengths, as 32-bit words. */
  readonly sizes: readonly number[];
  readonly groups: readonly [number, number, number];
}

/**
 * The first words of every kernel's uniform buffer: values that WGSL has no literal for, or that a compiler must not
 * know: 0 (added to constant bounds of loops, which drivers otherwise unroll, and are slow to compile), a quiet NaN, +infinity, -infinity.
 */
export const HEADER: readonly number[] = [0, 0x7fc00000, 0x7f800000, 0xff800000];

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

/** 0 to n - 1. */
export function range(n: number): number[] {
  const all: number[] = []; // `Array.from` with a function is many times slower
  for (let i = 0; i < n; i++) all.push(i);
  return all;
}

/** Spreads `groups` workgroups over two dimensions if one cannot hold them; the shader returns early in surplus workgroups. */
export function grid(groups: number, target: Target): readonly [number, number, number] {
  if (groups <= target.maxGroupsPerDimension) return [groups, 1, 1];
  const rows = ceilDiv(groups, target.maxGroupsPerDimension);
  return [ceilDiv(groups, rows), rows, 1];
}
