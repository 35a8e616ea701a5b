/**
 * Products of a few rows with a matrix, as in generation token by token: the matrix is read once, in its stored precision and
 * order, without packing. Accumulation is in f32, in an order that depends only on shapes.
 */
import { BYTES, type Operand } from "@tiedlora/kernels";
import { type Expr, type Fn, i32s, type Local, type Module } from "../assembler.ts";
import { f32x4, i32, v128 } from "../instructions.ts";
import { loadLanes, loadSplat } from "../loops/load-store.ts";
import { VectorMath } from "../math.ts";

/**
 * With more rows than this, it is faster to pack the matrix: one limit for contiguous rows of the matrix, one for contiguous
 * columns.
 */
const MAX_ROWS = { alongColumns: 6, alongDepth: 8 } as const;

/** A product of `m` rows: A [m, k], B [k, n]; C has contiguous rows. */
export interface SkinnyProduct {
  readonly m: number;
  readonly k: number;
  readonly a: Operand;
  readonly b: Operand;
  /** Bytes from row to row of C. */
  readonly rowStride: number;
}

const lastStrides = ({ view }: Operand): [number, number] =>
  view.strides.slice(-2) as unknown as [number, number];

/** Whether there is a kernel for a product: few rows, and contiguous rows of B, or contiguous columns of B and rows of A. */
export function isSkinny(m: number, a: Operand, b: Operand): boolean {
  const [bK, bN] = lastStrides(b);
  if (bN === 1) return m <= MAX_ROWS.alongColumns;
  return m <= MAX_ROWS.alongDepth && bK === 1 && lastStrides(a)[1] === 1;
}

/** gemv(a, b, c, columns, add): `columns` columns of C (+)= A·B; a, b and c are the addresses of the first elements. */
export function emitGemv(module: Module, product: SkinnyProduct, fma: boolean): Fn {
  return module.fn(null, i32s(5), [], (f, a, b, c, columns, add) => {
    const call = { f, math: new VectorMath(f, fma), ...product, at: { a, b, c, columns, add } };
    if (lastStrides(product.b)[1] === 1) alongColumns(call);
    else alongDepth(call);
  });
}

interface Emission extends SkinnyProduct {
  readonly f: Fn;
  readonly math: VectorMath;
  readonly at: {
    readonly a: Local;
    readonly b: Local;
    readonly c: Local;
    readonly columns: Local;
    readonly add: Local;
  };
}

/** For contiguous rows of B: adds x_k · row k of B to C, for several k at a time; C stays in cache. */
function alongColumns({ f, math, m, k, a, b, rowStride, at }: Emission): void {
  const [aRow, aK] = lastStrides(a).map((s) => s * BYTES[a.dtype]) as [number, number];
  const bytes = BYTES[b.dtype];
  const bK = lastStrides(b)[0] * bytes;
  const deep = Math.max(1, Math.floor(8 / m));
  const [i, x, first] = [f.local("i32"), f.local("i32", at.a), f.local("i32", at.b)];
  const fresh = f.local("i32", i32.eqz(at.add));

  const rows = (depth: number): void => {
    const factors = Array.from({ length: m }, (_, r) =>
      Array.from({ length: depth }, (_x, kk) => f.bind(loadSplat(math, a.dtype, x, r * aRow + kk * aK))),
    );
    const sources = Array.from({ length: depth }, (_, kk) => f.local("i32", i32.add(first, kk * bK)));
    const target = f.local("i32", at.c);
    const n = f.local("i32", 0);
    const run = (lanes: 1 | 4, start: (p: number) => Expr): void =>
      f.while(
        () => i32.le_s(i32.add(n, lanes), at.columns),
        () => {
          const values = sources.map((p) =>
            f.bind(lanes === 4 ? loadLanes(math, b.dtype, p, 1, 0) : loadSplat(math, b.dtype, p, 0)),
          );
          factors.forEach((row, r) => {
            let sum = start(r * rowStride);
            row.forEach((factor, kk) => (sum = math.madd(factor, values[kk] as Local, sum)));
            if (lanes === 4) v128.store(f, target, sum, r * rowStride);
            else v128.store32_lane(f, target, sum, 0, r * rowStride);
            if (r % 4 === 3 && r + 1 < m) f.breakIf(i32.eqz(target), 1); // never taken: see Tile.rowGroup
          });
          for (const p of sources) f.add(p, lanes * bytes);
          f.add(target, 4 * lanes);
          f.add(n, lanes);
        },
      );
    const all = (start: (lanes: 1 | 4) => (p: number) => Expr): void => {
      run(4, start(4));
      run(1, start(1));
    };
    f.if(
      fresh,
      () => all(() => () => math.k(0)),
      () => all((lanes) => (p) => (lanes === 4 ? v128.load(target, p) : v128.load32_splat(target, p))),
    );
    f.set(fresh, 0);
    f.add(x, depth * aK);
    f.add(first, depth * bK);
  };
  if (k >= deep) f.for(i, 0, k - deep + 1, deep, () => rows(deep));
  for (let rest = k % deep; rest > 0; rest--) rows(1);
}

/** For contiguous columns of B and rows of A: dot products, several columns at a time. */
function alongDepth(e: Emission): void {
  const { f, m, b, at } = e;
  const bN = lastStrides(b)[1] * BYTES[b.dtype];
  const wide = m <= 2 ? 4 : m <= 4 ? 2 : 1;
  const [n, column, target] = [f.local("i32", 0), f.local("i32", at.b), f.local("i32", at.c)];
  for (const width of wide > 1 ? [wide, 1] : [1]) {
    f.while(
      () => i32.le_s(i32.add(n, width), at.columns),
      () => {
        dots(e, width, column, target);
        f.add(column, width * bN);
        f.add(target, 4 * width);
        f.add(n, width);
      },
    );
  }
}

/** Multiplies all rows of A by `width` columns of B, into C at `target`. */
function dots(
  { f, math, m, k, a, b, rowStride, at }: Emission,
  width: number,
  column: Local,
  target: Local,
): void {
  const [aBytes, bBytes] = [BYTES[a.dtype], BYTES[b.dtype]];
  const aRow = lastStrides(a)[0] * aBytes;
  const bN = lastStrides(b)[1] * bBytes;
  // enough independent sums to hide the latency of an addition
  const unroll = m * width <= 4 ? 2 : 1;
  const sums = Array.from({ length: unroll * m * width }, () => f.local("v128", math.k(0)));
  const sum = (u: number, r: number, j: number): Local => sums[(u * m + r) * width + j] as Local;
  const [x, i] = [f.local("i32", at.a), f.local("i32", 0)];
  const ps = Array.from({ length: width }, (_, j) => f.local("i32", i32.add(column, j * bN)));
  const step = (us: number, lanes: 1 | 4): void => {
    const laneZero = f.constant("lane0", v128.const32([0xffffffff, 0, 0, 0]));
    for (let u = 0; u < us; u++) {
      const ys = ps.map((p) =>
        f.bind(
          lanes === 4
            ? loadLanes(math, b.dtype, p, 1, 4 * u * bBytes)
            : v128.and(loadSplat(math, b.dtype, p, 0), laneZero),
        ),
      );
      for (let r = 0; r < m; r++) {
        const at0 = r * aRow + 4 * u * aBytes;
        const xr = f.bind(
          lanes === 4 ? loadLanes(math, a.dtype, x, 1, at0) : loadSplat(math, a.dtype, x, at0),
        );
        ys.forEach((y, j) => f.set(sum(u, r, j), math.madd(xr, y, sum(u, r, j))));
        if (r % 4 === 3 && r + 1 < m) f.breakIf(i32.eqz(x), 1); // never taken: see Tile.rowGroup
      }
    }
    const n = us * lanes;
    for (const p of ps) f.add(p, n * bBytes);
    f.add(x, n * aBytes);
    f.add(i, n);
  };
  const phases: [number, 1 | 4][] = unroll > 1 ? [[unroll, 4], [1, 4], [1, 1]] : [[1, 4], [1, 1]]; // prettier-ignore
  for (const [us, lanes] of phases) {
    f.while(
      () => i32.le_s(i32.add(i, us * lanes), k),
      () => step(us, lanes),
    );
  }
  for (let r = 0; r < m; r++) {
    for (let j = 0; j < width; j++) {
      const total = sum(0, r, j);
      for (let u = 1; u < unroll; u++) f.set(total, f32x4.add(total, sum(u, r, j)));
      f.set(total, f32x4.add(total, v128.shuffle32(total, total, [2, 3, 0, 1])));
      f.set(total, f32x4.add(total, v128.shuffle32(total, total, [1, 0, 3, 2])));
      const place = r * rowStride + 4 * j;
      f.if(at.add, () => f.set(total, f32x4.add(total, v128.load32_splat(target, place))));
      v128.store32_lane(f, target, total, 0, place);
    }
  }
}
