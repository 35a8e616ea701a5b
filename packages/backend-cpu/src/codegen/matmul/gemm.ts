/**
 * The GEMM core, a separate module that is compiled once per process: packing of A and B into strips, and a block kernel on
 * packed operands (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Programs import it and
 * do the blocking themselves, with their shapes as constants (`matmul.ts`).
 *
 * A packed strip holds, for every k, the `rows` values of the strip; k is padded with zeros to a multiple of the unrolling.
 * Packing accepts any strides and widens half precision, so transposes and frozen half-precision weights cost nothing extra.
 * Rows of A that are contiguous along k can be read in place instead.
 */
import { BYTES, type Operand } from "@tiedlora/kernels";
import type { Callable, Expr, Fn, I32s, Int, Local } from "../assembler.ts";
import { i32s, Module } from "../assembler.ts";
import { f32, f32x4, i32, memory, v128 } from "../instructions.ts";
import { loadLanes, loadSplat } from "../loops/load-store.ts";
import { VectorMath } from "../math.ts";

/** A register tile of `rows` x 4·`vectors`, and the unrolling over k, which divides 4·`vectors`. */
export interface Tile {
  readonly rows: number;
  readonly vectors: number;
  readonly unroll: number;
  readonly fma: boolean;
  /**
   * The code has a branch (never taken) after every group of this many rows. V8 before 12 moves all loads of a basic block to
   * its start, and so runs out of registers for tiles above 4x8; with groups of two rows, 6x8 fits and is 7 % faster.
   * Default: one group of all rows.
   */
  readonly rowGroup?: number;
  /**
   * Whether each packed row has its own pointer, as rows that are read in place do. V8 13 combines splats into 256 bits, and
   * then computes the address again for each offset from a shared pointer, which takes a fifth more instructions. Earlier
   * versions include the offset in the load.
   */
  readonly rowPointers?: true;
}

export type GemmDType = "f32" | "f16" | "bf16";
export const GEMM_DTYPES: readonly GemmDType[] = ["f32", "f16", "bf16"];

/** Names and signatures of the module's functions. */
export const PACK_PARAMS: I32s<6> = i32s(6);
export const BLOCK_PARAMS: I32s<9> = i32s(9);
export const IN_PLACE_PARAMS: I32s<11> = i32s(11);
export const packName = (side: "A" | "B", dtype: GemmDType): string => `pack${side}_${dtype}`;
export const BLOCK_NAME = "block";
export const IN_PLACE_NAME = "blockInPlace";

/** The columns of a tile. */
export function tileColumns(tile: Tile): number {
  return 4 * tile.vectors;
}

export function gemmModule(tile: Tile, shared: boolean): Uint8Array<ArrayBuffer> {
  const module = new Module();
  for (const dtype of GEMM_DTYPES) {
    emitPack(module, packName("A", dtype), { height: tile.rows, together: 1 }, tile, dtype);
    emitPack(module, packName("B", dtype), { height: tileColumns(tile), together: 8 }, tile, dtype);
  }
  const block = emitBlock(module, tile, emitTile(module, tile, "packed"));
  emitInPlace(module, tile, emitTile(module, tile, "in place"), block);
  return module.bytes({ shared });
}

/** k rounded up to the unrolling. */
function padded(k: Expr, tile: Tile): Expr {
  return i32.and(i32.add(k, tile.unroll - 1), -tile.unroll);
}

/**
 * pack(to, from, rowStride, kStride, rows, k): packs strips of `height` rows; element (r, k) is at from + r·rowStride +
 * k·kStride (bytes). If rows are adjacent in memory, `together` strips are packed at once: several consecutive cache lines
 * are read before the next k, which is usually on another page. From cold memory, this takes about half the time.
 */
function emitPack(
  module: Module,
  name: string,
  { height, together }: { readonly height: number; readonly together: number },
  tile: Tile,
  dtype: GemmDType,
): void {
  module.fn(name, PACK_PARAMS, [], (f, to, from, rowStride, kStride, rows, k) => {
    const math = new VectorMath(f, tile.fma);
    const strip = { f, math, dtype, height, to, rowStride, kStride, k };
    const row = f.local("i32");
    const p = f.local("i32");
    const left = f.local("i32");
    if (together > 1) {
      f.if(i32.eq(rowStride, BYTES[dtype]), () => {
        const bytes = f.bind(i32.mul(padded(k, tile), 4 * height));
        f.while(
          () => i32.le_s(i32.add(row, together * height), rows),
          () => {
            f.set(p, i32.add(from, i32.mul(row, rowStride)));
            packTogether(strip, p, together, bytes);
            f.add(row, together * height);
          },
        );
      });
    }
    f.for(row, row, rows, height, () => {
      f.set(left, i32.sub(rows, row));
      f.set(p, i32.add(from, i32.mul(row, rowStride)));
      f.if(
        i32.ge_s(left, height),
        () =>
          f.if(
            i32.eq(rowStride, BYTES[dtype]),
            () => packContiguous(strip, p),
            () => packStrided(strip, p),
          ),
        () => packPartial(strip, p, left),
      );
      const padding = f.bind(i32.mul(i32.sub(padded(k, tile), k), 4 * height));
      memory.fill(f, to, 0, padding);
      f.add(to, padding);
    });
  });
}

interface Strip {
  readonly f: Fn;
  readonly math: VectorMath;
  readonly dtype: GemmDType;
  readonly height: number;
  readonly to: Local;
  readonly rowStride: Local;
  readonly kStride: Local;
  readonly k: Local;
}

/** Packs a strip whose rows are adjacent in memory, by straight copies. */
function packContiguous(strip: Strip, p: Local): void {
  const { f, height, to, kStride, k } = strip;
  const i = f.local("i32");
  f.for(i, 0, k, 1, () => {
    copyRows(strip, to, p, 0);
    f.add(to, 4 * height);
    f.add(p, kStride);
  });
}

/** Copies the `height` elements from `row` on of the line at `p`. */
function copyRows({ f, math, dtype, height }: Strip, to: Local, p: Local, row: number): void {
  const at = (r: number): number => (row + r) * BYTES[dtype];
  let r = 0;
  for (; r + 4 <= height; r += 4) v128.store(f, to, loadLanes(math, dtype, p, 1, at(r)), 4 * r);
  for (; r < height; r++) v128.store32_lane(f, to, loadSplat(math, dtype, p, at(r)), 0, 4 * r);
}

/** As `packContiguous`, for `count` strips of `bytes` each, padding included. */
function packTogether(strip: Strip, p: Local, count: number, bytes: Local): void {
  const { f, height, to, kStride, k } = strip;
  const ends = Array.from({ length: count }, () => {
    const end = f.local("i32", to);
    f.add(to, bytes);
    return end;
  });
  const i = f.local("i32");
  f.for(i, 0, k, 1, () => {
    ends.forEach((end, s) => {
      copyRows(strip, end, p, s * height);
      f.add(end, 4 * height);
    });
    f.add(p, kStride);
  });
  const padding = f.bind(i32.sub(bytes, i32.mul(k, 4 * height)));
  for (const end of ends) memory.fill(f, end, 0, padding);
}

/** Packs a strip with any strides; where k is contiguous, in transposed blocks of 4x4, and of 2x4 for the last two rows. */
function packStrided(strip: Strip, p: Local): void {
  const { f, math, dtype, height, to, rowStride, kStride, k } = strip;
  const bytes = BYTES[dtype];
  const at = Array.from({ length: height }, () => f.local("i32"));
  at.forEach((x, r) => f.set(x, r === 0 ? p : i32.add(at[r - 1] as Local, rowStride)));
  const i = f.local("i32", 0);
  if (height % 2 === 0) {
    const four = (r: number): Local => f.bind(loadLanes(math, dtype, at[r] as Local, 1, 0));
    const whole = f.local("i32", i32.select(i32.and(k, -4), 0, i32.eq(kStride, bytes)));
    f.for(i, 0, whole, 4, () => {
      let r = 0;
      for (; r + 4 <= height; r += 4) {
        transpose(f, [four(r), four(r + 1), four(r + 2), four(r + 3)]).forEach((column, x) =>
          v128.store(f, to, column, 4 * (r + x * height)),
        );
      }
      if (r < height) {
        const [first, second] = [four(r), four(r + 1)];
        const [low, high] = [
          f.bind(v128.shuffle32(first, second, [0, 4, 1, 5])),
          f.bind(v128.shuffle32(first, second, [2, 6, 3, 7])),
        ];
        [low, low, high, high].forEach((pairs, x) =>
          v128.store64_lane(f, to, pairs, x % 2, 4 * (r + x * height)),
        );
      }
      for (const x of at) f.add(x, 4 * bytes);
      f.add(to, 16 * height);
    });
  }
  f.for(i, i, k, 1, () => {
    at.forEach((x, r) => {
      v128.store32_lane(f, to, loadSplat(math, dtype, x, 0), 0, 4 * r);
      f.add(x, kStride);
    });
    f.add(to, 4 * height);
  });
}

/** The columns of the 4x4 block with these rows. */
function transpose(f: Fn, [a, b, c, d]: readonly [Expr, Expr, Expr, Expr]): Expr[] {
  const low = [
    f.bind(v128.shuffle32(a, b, [0, 4, 1, 5])),
    f.bind(v128.shuffle32(c, d, [0, 4, 1, 5])),
  ] as const;
  const high = [
    f.bind(v128.shuffle32(a, b, [2, 6, 3, 7])),
    f.bind(v128.shuffle32(c, d, [2, 6, 3, 7])),
  ] as const;
  return [low, high].flatMap(([x, y]) => [
    v128.shuffle32(x, y, [0, 1, 4, 5]),
    v128.shuffle32(x, y, [2, 3, 6, 7]),
  ]);
}

/** Packs the last strip, which has fewer rows than its height; zeros stand for the missing rows. */
function packPartial(
  { f, math, dtype, height, to, rowStride, kStride, k }: Strip,
  p: Local,
  left: Local,
): void {
  const bytes = f.bind(i32.mul(k, 4 * height));
  memory.fill(f, to, 0, bytes);
  const [r, i, source, target] = [f.local("i32"), f.local("i32"), f.local("i32"), f.local("i32")];
  f.for(r, 0, left, 1, () => {
    f.set(source, p);
    f.set(target, i32.add(to, i32.shl(r, 2)));
    f.for(i, 0, k, 1, () => {
      v128.store32_lane(f, target, loadSplat(math, dtype, source, 0), 0);
      f.add(source, kStride);
      f.add(target, 4 * height);
    });
    f.add(p, rowStride);
  });
  f.add(to, bytes);
}

/**
 * tile(a, b, c, rowStride, add, k, aRow): C (+)= strip of A · strip of B; k must be a multiple of the unrolling. A is packed,
 * or its rows are contiguous and `aRow` bytes apart.
 */
function emitTile(module: Module, tile: Tile, a: "packed" | "in place"): Fn {
  const { rows, vectors, unroll } = tile;
  const columns = tileColumns(tile);
  return module.fn(null, i32s(7), [], (f, from, b, c, rowStride, add, k, aRow) => {
    const math = new VectorMath(f, tile.fma);
    const sums = Array.from({ length: rows }, () =>
      Array.from({ length: vectors }, () => f.local("v128", f32x4.const(0))),
    );
    const [toRow, toDepth] = a === "packed" ? [4, 4 * rows] : [aRow, 4];
    const single = typeof toRow === "number" && tile.rowPointers !== true;
    const lines = single ? [f.local("i32", from)] : sums.map(() => f.local("i32"));
    if (!single)
      lines.forEach((line, r) => f.set(line, r === 0 ? from : i32.add(lines[r - 1] as Local, toRow)));
    const element = (r: number, u: number): Expr =>
      single
        ? v128.load32_splat(lines[0] as Local, r * toRow + toDepth * u)
        : v128.load32_splat(lines[r] as Local, toDepth * u);
    const end = f.local("i32", i32.add(b, i32.mul(k, 4 * columns)));
    const row = Array.from({ length: vectors }, () => f.local("v128"));
    const x = f.local("v128");
    const group = tile.rowGroup ?? rows;
    f.while(
      () => i32.lt_u(b, end),
      () => {
        for (let u = 0; u < unroll; u++) {
          row.forEach((y, j) => f.set(y, v128.load(b, 4 * (u * columns + 4 * j))));
          sums.forEach((sum, r) => {
            f.set(x, element(r, u));
            row.forEach((y, j) => f.set(sum[j] as Local, math.madd(x, y, sum[j] as Local)));
            if ((r + 1) % group === 0 && r + 1 < rows) f.breakIf(i32.eq(b, end), 1); // never taken; see Tile
          });
        }
        for (const line of lines) f.add(line, toDepth * unroll);
        f.add(b, 4 * columns * unroll);
      },
    );
    const write = (value: (sum: Expr, j: number) => Expr): void =>
      sums.forEach((sum) => {
        // all of a row's loads come before its stores, because V8 combines neither loads across stores nor stores across loads
        const values = sum.map(value);
        values.forEach((x, j) => v128.store(f, c, x, 16 * j));
        f.add(c, rowStride);
      });
    f.if(
      add,
      () => write((s, j) => f.bind(f32x4.add(v128.load(c, 16 * j), s))),
      () => write((s) => s),
    );
  });
}

/**
 * block(a, b, c, rowStride, m, n, k, add, spare): multiplies packed A [m, k] by packed B [k, n] into C; `spare` is memory for
 * one tile, in which tiles that reach beyond C are computed. A strip of B stays in L1 while it is multiplied by all of A.
 */
function emitBlock(module: Module, tile: Tile, tileFn: Fn): Fn {
  return module.fn(BLOCK_NAME, BLOCK_PARAMS, [], (f, pa, pb, c, rowStride, m, n, k, add, spare) => {
    const [i, j, a] = [f.local("i32"), f.local("i32"), f.local("i32")];
    const b = f.local("i32", pb);
    const kPadded = f.bind(padded(k, tile));
    f.for(j, 0, n, tileColumns(tile), () => {
      f.set(a, pa);
      f.for(i, 0, m, tile.rows, () => {
        intoC(f, tile, { c, rowStride, m, n, i, j, add, spare }, (...to) =>
          f.call(tileFn, a, b, ...to, kPadded, 0),
        );
        f.add(a, i32.mul(kPadded, 4 * tile.rows));
      });
      f.add(b, i32.mul(kPadded, 4 * tileColumns(tile)));
    });
  });
}

/**
 * blockInPlace(a, aRow, rest, b, c, rowStride, m, n, k, add, spare): like block, but reads A in place: its rows must be
 * contiguous and `aRow` bytes apart, and k a multiple of the unrolling. `rest` is the packed strip of the rows beyond whole
 * strips. A strip of A stays in L1 while it is multiplied by all of B.
 */
function emitInPlace(module: Module, tile: Tile, tileFn: Fn, block: Fn): void {
  module.fn(IN_PLACE_NAME, IN_PLACE_PARAMS, [], (f, from, aRow, ...rest) => {
    const [packed, pb, c, rowStride, m, n, k, add, spare] = rest;
    const [i, j, b] = [f.local("i32"), f.local("i32"), f.local("i32")];
    const a = f.local("i32", from);
    const left = f.bind(i32.rem_u(m, tile.rows));
    const whole = f.bind(i32.sub(m, left));
    f.for(i, 0, whole, tile.rows, () => {
      f.set(b, pb);
      f.for(j, 0, n, tileColumns(tile), () => {
        intoC(f, tile, { c, rowStride, m, n, i, j, add, spare }, (...to) =>
          f.call(tileFn, a, b, ...to, k, aRow),
        );
        f.add(b, i32.mul(k, 4 * tileColumns(tile)));
      });
      f.add(a, i32.mul(aRow, tile.rows));
    });
    f.if(left, () => {
      const to = i32.add(c, i32.mul(whole, rowStride));
      f.call(block, packed, pb, to, rowStride, left, n, k, add, spare);
    });
  });
}

/** Whether `blockInPlace` accepts `a`: it is f32, its rows are contiguous along k, and k is a multiple of the unrolling. */
export function fitsInPlace(a: Operand, k: number, tile: Tile): boolean {
  return a.dtype === "f32" && a.view.strides.at(-1) === 1 && k % tile.unroll === 0;
}

/** Packs those of the f32 rows at `from` that `blockInPlace` needs packed: the rows beyond whole strips. */
export function packRest(
  f: Fn,
  pack: Callable,
  { rows: height }: Tile,
  { to, from, rowStride, rows, k }: { to: Int; from: Expr; rowStride: Int; rows: Local; k: Int },
): void {
  const rest = f.bind(i32.rem_u(rows, height));
  f.if(rest, () => {
    const skipped = i32.mul(i32.sub(rows, rest), rowStride);
    f.call(pack, to, i32.add(from, skipped), rowStride, 4, rest, k);
  });
}

/** C [m, n], and the place [i, j] of a tile in it. */
interface TilePlace {
  readonly c: Local;
  readonly rowStride: Local;
  readonly m: Local;
  readonly n: Local;
  readonly i: Local;
  readonly j: Local;
  /** Whether C is added to. */
  readonly add: Local;
  readonly spare: Local;
}

/** Writes a tile to its place in C: `compute` gets the address to write to, the stride of rows there, and whether to add. */
function intoC(
  f: Fn,
  tile: Tile,
  place: TilePlace,
  compute: (to: Local, rowStride: Int, add: Int) => void,
): void {
  const { c, rowStride, m, n, i, j, add, spare } = place;
  const columns = tileColumns(tile);
  const target = f.bind(i32.add(i32.add(c, i32.mul(i, rowStride)), i32.shl(j, 2)));
  const whole = i32.and(i32.le_s(i32.add(i, tile.rows), m), i32.le_s(i32.add(j, columns), n));
  f.if(
    whole,
    () => compute(target, rowStride, add),
    () => {
      compute(spare, 4 * columns, 0);
      const size = { height: i32.sub(m, i), width: i32.sub(n, j) };
      copyCorner(f, tile, spare, target, rowStride, size, add);
    },
  );
}

/** Copies, or adds, the part of the tile at `from` that lies within C. */
function copyCorner(
  f: Fn,
  tile: Tile,
  from: Expr,
  to: Expr,
  rowStride: Expr,
  size: { readonly height: Expr; readonly width: Expr },
  add: Expr,
): void {
  const [r, j] = [f.local("i32"), f.local("i32")];
  const columns = tileColumns(tile);
  const least = (x: Local, bound: number): Local => f.bind(i32.select(x, bound, i32.lt_s(x, bound)));
  const height = least(f.bind(size.height), tile.rows);
  const width = f.bind(i32.shl(least(f.bind(size.width), columns), 2));
  const [source, target] = [f.local("i32", from), f.local("i32", to)];
  f.for(r, 0, height, 1, () => {
    f.for(j, 0, width, 4, () => {
      const value = f32.load(i32.add(source, j));
      f.if(
        add,
        () => f32.store(f, i32.add(target, j), f32.add(f32.load(i32.add(target, j)), value)),
        () => f32.store(f, i32.add(target, j), value),
      );
    });
    f.add(source, 4 * columns);
    f.add(target, rowStride);
  });
}
