/**
 * Elementary functions on four f32 lanes. `math.test.ts` checks the errors below, in units in the last place (ulp) of the
 * exact value. For every function, NaN gives NaN, and an infinite argument gives the limit, if there is one.
 *
 * | function | error, ulp | notes |
 * |---|---|---|
 * | exp | 2 | subnormal results are right to 1 ulp |
 * | expm1 | 3 | exactly -1 below -17.4 |
 * | log | 2 | subnormal arguments included; log 0 = -inf, log of a negative number is NaN |
 * | log1p | 3 | log1p(-1) = -inf |
 * | sin, cos | 2, or 1e-7 absolute | reduced in f64; beyond 2^20 with as many digits of 2/π as needed |
 * | tanh | 4 | by expm1; ±1 from 9.1 |
 * | erf | 10, or 3e-7 absolute | rational 13/8 (as in Eigen) |
 * | mod | exact for quotients below 2^28 | sign of the dividend |
 *
 * sqrt, division and floor are correctly rounded instructions; recip is a division, and rsqrt a sqrt and a division.
 */
import type { Expr, Fn, Local } from "./assembler.ts";
import { f32x4, f64x2, i32x4, i8x16, v128 } from "./instructions.ts";

/** 1.5 · 2^23: adding it leaves round(x) in the low bits of the sum. */
const ROUNDING_MAGIC = 12582912;

/** Coefficients of q in exp r = 1 + r + r² q(r), fitted for the least relative error on |r| <= ln 2 / 2: 0.05 ulp. */
const EXP: readonly [number, ...number[]] = [
  1.3814535923e-3, 8.3687454462e-3, 4.1668392718e-2, 1.6666521132e-1, 4.9999994039e-1,
];

/** 2/π in parts of 24 bits: enough parts that the error of the omitted digits is below 2^-50 for the largest f32. */
const TWO_OVER_PI: readonly number[] = [
  0xa2f983, 0x6e4e44, 0x1529fc, 0x2757d1, 0xf534dd, 0xc0db62, 0x95993c, 0x439041,
].map((digits, i) => digits * 2 ** (-24 * (i + 1)));

export class VectorMath {
  readonly #f: Fn;
  readonly #fma: boolean;

  constructor(f: Fn, fma: boolean) {
    this.#f = f;
    this.#fma = fma;
  }

  /** A constant f32 in all lanes. */
  k(x: number): Local {
    return this.#f.constant(`f32:${Object.is(x, -0) ? "-0" : Math.fround(x)}`, f32x4.const(x));
  }

  /** A constant integer in all lanes. */
  ki(x: number): Local {
    return this.#f.constant(`i32:${x | 0}`, i32x4.const(x));
  }

  #kd(x: number): Local {
    return this.#f.constant(`f64:${x}`, f64x2.const(x));
  }

  madd(a: Expr, b: Expr, c: Expr): Expr {
    return this.#fma ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
  }

  /** Bytes of `table`, at the numbers from 0 to 15 in the bytes of `places`. */
  lookUp(table: Expr, places: Expr): Expr {
    return this.#fma ? i8x16.relaxed_swizzle(table, places) : i8x16.swizzle(table, places);
  }

  /** Horner's rule, highest power first. */
  #polynomial(x: Expr, [first, ...rest]: readonly [number, ...number[]]): Expr {
    let sum: Expr = this.k(first);
    for (const c of rest) sum = this.madd(sum, x, this.k(c));
    return sum;
  }

  /** `x` limited to [low, high]. The bounds are the second operands, so that NaN passes through. */
  #clamp(x: Expr, low: number, high: number): Local {
    return this.#f.bind(f32x4.pmax(f32x4.pmin(x, this.k(high)), this.k(low)));
  }

  /** Splits x = n ln 2 + r with |r| <= ln 2 / 2; the low bits of `t` hold n + 254. */
  #splitExponent(x: Expr): { t: Local; r: Local } {
    const f = this.#f;
    const magic = ROUNDING_MAGIC + 254;
    const t = f.bind(this.madd(x, this.k(Math.LOG2E), this.k(magic)));
    const n = f.bind(f32x4.sub(t, this.k(magic)));
    const high = this.madd(n, this.k(-0.693145751953125), x);
    return { t, r: f.bind(this.madd(n, this.k(-1.428606765330187e-6), high)) };
  }

  /** 2^n · p(r), with 2^n as two factors, so that overflow and subnormal results are correct. */
  exp(argument: Expr): Expr {
    const f = this.#f;
    const { t, r } = this.#splitExponent(this.#clamp(argument, -104.5, 89.5));
    const p = this.#polynomial(r, [...EXP, 1, 1]);
    const half = f.bind(i32x4.shr_u(t, 1));
    return f32x4.mul(f32x4.mul(p, i32x4.shl(half, 23)), i32x4.shl(i32x4.sub(t, half), 23));
  }

  /** 2 (s (p(r) - 1) + (s - ½)) with s = 2^(n-1), which does not overflow before the result does. */
  expm1(argument: Expr): Expr {
    const f = this.#f;
    const { t, r } = this.#splitExponent(this.#clamp(argument, -30, 89.5));
    const q = this.madd(f32x4.mul(r, r), this.#polynomial(r, EXP), r);
    const s = f.bind(i32x4.shl(i32x4.sub(t, this.ki(128)), 23));
    const half = f.bind(this.madd(s, q, f32x4.sub(s, this.k(0.5))));
    return f32x4.add(half, half);
  }

  log(argument: Expr): Expr {
    const f = this.#f;
    const x0 = f.bind(argument);
    const small = f.bind(f32x4.lt(x0, this.k(2 ** -126)));
    const x = f.bind(v128.bitselect(f32x4.mul(x0, this.k(2 ** 23)), x0, small));
    return this.#logOf(x0, x, v128.and(small, this.ki(23)), null);
  }

  /** log(1 + x), computed from x itself where 1 + x is near 1. */
  log1p(argument: Expr): Expr {
    const x = this.#f.bind(argument);
    const sum = this.#f.bind(f32x4.add(x, this.k(1)));
    return this.#logOf(sum, sum, null, x);
  }

  /**
   * log x0, where x = x0 · 2^shift = 2^(e + shift) · m with m in [√½, √2), by Cephes' polynomial in m - 1. Where e + shift is
   * 0, `near`, if given, is used for m - 1.
   */
  #logOf(x0: Local, x: Local, shift: Expr | null, near: Local | null): Expr {
    const f = this.#f;
    const up = f.bind(i32x4.sub(x, this.ki(0x3f3504f3))); // bits of √½
    const exponent = f.bind(i32x4.shr_s(up, 23));
    const e = f.bind(f32x4.convert_i32x4_s(shift === null ? exponent : i32x4.sub(exponent, shift)));
    const m = i32x4.add(v128.and(up, this.ki(0x7fffff)), this.ki(0x3f3504f3));
    const off = f32x4.sub(m, this.k(1));
    const r = f.bind(near === null ? off : v128.bitselect(near, off, i32x4.eq(exponent, this.ki(0))));
    const r2 = f.bind(f32x4.mul(r, r));
    const p = this.#polynomial(
      r,
      [
        7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
      ],
    );
    const low = this.madd(f32x4.mul(r2, r), p, f32x4.mul(e, this.k(-2.1219444e-4)));
    const tail = this.madd(r2, this.k(-0.5), low);
    const y = f.bind(this.madd(e, this.k(0.693359375), f32x4.add(r, tail)));
    const zero = f32x4.eq(x0, this.k(0));
    const invalid = v128.not(f32x4.ge(x0, this.k(0))); // negative or NaN
    const infinite = f32x4.eq(x0, this.k(Infinity));
    const a = f.bind(v128.bitselect(this.k(-Infinity), y, zero));
    const b = f.bind(v128.bitselect(this.k(Infinity), a, infinite));
    return v128.or(b, invalid);
  }

  sin(x: Expr): Expr {
    return this.#sinCos(x, 0);
  }

  cos(x: Expr): Expr {
    return this.#sinCos(x, 1);
  }

  /** Splits x = n π/2 + r with |r| <= π/4. `half` does this in f64 for two lanes: first for lanes 0 and 1, then for 2 and 3. */
  #reduceBy(x: Local, half: (wide: Local) => [r: Expr, n: Expr]): [r: Expr, n: Expr] {
    const f = this.#f;
    const parts = [x, v128.shuffle32(x, x, [2, 3, 2, 3])].map((a): [Local, Local] => {
      const [r, n] = half(f.bind(f64x2.promote_low_f32x4(a)));
      return [f.bind(f32x4.demote_f64x2_zero(r)), f.bind(i32x4.trunc_sat_f64x2_s_zero(n))];
    });
    const join = (i: 0 | 1): Expr => v128.shuffle32(parts[0]![i], parts[1]![i], [0, 1, 4, 5]);
    return [join(0), join(1)];
  }

  /** The reduction for |x| < 2^20, with an error of about 2^-50. */
  #reduceSmall(wide: Local): [r: Expr, n: Expr] {
    const n = this.#f.bind(f64x2.nearest(f64x2.mul(wide, this.#kd(2 / Math.PI))));
    const high = f64x2.sub(wide, f64x2.mul(n, this.#kd(1.5707963267341256))); // 33 bits: n · this is exact
    return [f64x2.sub(high, f64x2.mul(n, this.#kd(6.077100506506192e-11))), n];
  }

  /**
   * The reduction for any x (Payne and Hanek): multiplies x by each 24-bit part of 2/π, which is exact, and adds up what
   * remains of the products after multiples of 4 are removed.
   */
  #reduceLarge(wide: Local): [r: Expr, n: Expr] {
    const f = this.#f;
    const turns = f.local("v128", this.#kd(0));
    for (const digits of TWO_OVER_PI) {
      const y = f.bind(f64x2.mul(wide, this.#kd(digits)));
      const whole = f64x2.mul(f64x2.nearest(f64x2.mul(y, this.#kd(0.25))), this.#kd(4));
      f.set(turns, f64x2.add(turns, f64x2.sub(y, whole)));
    }
    const n = f.bind(f64x2.nearest(turns));
    return [f64x2.mul(f64x2.sub(turns, n), this.#kd(Math.PI / 2)), n];
  }

  /** sin(x + turns · π/2). */
  #sinCos(argument: Expr, turns: number): Expr {
    const f = this.#f;
    const x = f.bind(argument);
    const [r0, n0] = this.#reduceBy(x, (wide) => this.#reduceSmall(wide)).map((v) => f.bind(v)) as [
      Local,
      Local,
    ];
    const large = f.bind(f32x4.gt(f32x4.abs(x), this.k(2 ** 20)));
    f.if(v128.any_true(large), () => {
      const [r1, n1] = this.#reduceBy(x, (wide) => this.#reduceLarge(wide));
      f.set(r0, v128.bitselect(r1, r0, large));
      f.set(n0, v128.bitselect(n1, n0, large));
    });
    const r = this.#clamp(r0, -0.7853982, 0.7853982);
    const n = f.bind(i32x4.add(n0, this.ki(turns)));
    const r2 = f.bind(f32x4.mul(r, r));
    const s = this.madd(
      f32x4.mul(r2, r),
      this.#polynomial(r2, [2.718121e-6, -1.9839334e-4, 8.3333293e-3, -1.6666667e-1]),
      r,
    );
    const c = this.madd(
      r2,
      this.#polynomial(r2, [-2.7132443e-7, 2.4799004e-5, -1.3888884e-3, 4.1666666e-2, -0.5]),
      this.k(1),
    );
    const odd = i32x4.eq(v128.and(n, this.ki(1)), this.ki(1));
    const sign = i32x4.shl(v128.and(n, this.ki(2)), 30);
    return v128.xor(v128.bitselect(c, s, odd), sign);
  }

  /** t / (t + 2) with t = expm1(2 |x|), which stays finite. */
  tanh(argument: Expr): Expr {
    const f = this.#f;
    const x = f.bind(argument);
    const size = f.bind(f32x4.pmin(f32x4.abs(x), this.k(10)));
    const t = f.bind(this.expm1(f32x4.add(size, size)));
    const y = f32x4.div(t, f32x4.add(t, this.k(2)));
    return v128.or(y, v128.and(x, this.ki(0x80000000)));
  }

  erf(argument: Expr): Expr {
    const f = this.#f;
    const x = this.#clamp(argument, -4, 4);
    const x2 = f.bind(f32x4.mul(x, x));
    const p = this.#polynomial(
      x2,
      [
        -2.72614225801306e-10, 2.77068142495902e-8, -2.10102402082508e-6, -5.69250639462346e-5,
        -7.34990630326855e-4, -2.95459980854025e-3, -1.60960333262415e-2,
      ],
    );
    const q = this.#polynomial(
      x2,
      [
        -1.45660718464996e-5, -2.13374055278905e-4, -1.68282697438203e-3, -7.37332916720468e-3,
        -1.42647390514189e-2,
      ],
    );
    const y = this.#clamp(f32x4.mul(x, f32x4.div(p, q)), -1, 1);
    return y;
  }

  /** a - trunc(a / b) · b in f64; a itself where b is infinite. */
  mod(dividend: Expr, divisor: Expr): Expr {
    const f = this.#f;
    const a = f.bind(dividend);
    const b = f.bind(divisor);
    const half = (x: Expr, y: Expr): Expr => {
      const wideX = f.bind(f64x2.promote_low_f32x4(x));
      const wideY = f.bind(f64x2.promote_low_f32x4(y));
      return f32x4.demote_f64x2_zero(
        f64x2.sub(wideX, f64x2.mul(f64x2.trunc(f64x2.div(wideX, wideY)), wideY)),
      );
    };
    const high = (x: Expr): Expr => v128.shuffle32(x, x, [2, 3, 2, 3]);
    const r = v128.shuffle32(half(a, b), half(high(a), high(b)), [0, 1, 4, 5]);
    const finite = f32x4.lt(f32x4.abs(a), this.k(Infinity));
    return v128.bitselect(a, r, v128.and(f32x4.eq(f32x4.abs(b), this.k(Infinity)), finite));
  }

  /** The f32 values of four half-precision patterns in the low 16 bits of the lanes. */
  fromF16(patterns: Expr): Expr {
    const f = this.#f;
    const h = f.bind(patterns);
    const magnitude = f.bind(v128.and(h, this.ki(0x7fff)));
    const scaled = f32x4.mul(i32x4.shl(magnitude, 13), this.k(2 ** 112));
    const special = v128.and(i32x4.gt_s(magnitude, this.ki(0x7bff)), this.ki(0x7f800000));
    return v128.or(v128.or(scaled, special), i32x4.shl(v128.and(h, this.ki(0x8000)), 16));
  }

  /** Half-precision patterns of four f32 values, ties to even. */
  toF16(values: Expr): Expr {
    const f = this.#f;
    const x = f.bind(values);
    const magnitude = f.bind(v128.and(x, this.ki(0x7fffffff)));
    const sign = v128.and(i32x4.shr_u(x, 16), this.ki(0x8000));
    const odd = v128.and(i32x4.shr_u(magnitude, 13), this.ki(1));
    const rebased = i32x4.add(magnitude, this.ki(0xc8000fff)); // exponent bias 127 -> 15, and half an ulp less one
    const normal = i32x4.shr_u(i32x4.add(rebased, odd), 13);
    const subnormal = i32x4.sub(f32x4.add(magnitude, this.k(0.5)), this.ki(0x3f000000));
    const isNaN = i32x4.gt_s(magnitude, this.ki(0x7f800000));
    const special = v128.or(this.ki(0x7c00), v128.and(isNaN, this.ki(0x200)));
    const finite = v128.bitselect(subnormal, normal, i32x4.lt_s(magnitude, this.ki(0x38800000)));
    const isSpecial = i32x4.gt_s(magnitude, this.ki(0x477fffff));
    return v128.or(v128.bitselect(special, finite, isSpecial), sign);
  }

  fromBf16(patterns: Expr): Expr {
    return i32x4.shl(patterns, 16);
  }

  /** bfloat16 patterns of four f32 values, ties to even. */
  toBf16(values: Expr): Expr {
    const f = this.#f;
    const x = f.bind(values);
    const odd = v128.and(i32x4.shr_u(x, 16), this.ki(1));
    const rounded = i32x4.shr_u(i32x4.add(i32x4.add(x, this.ki(0x7fff)), odd), 16);
    const nan = v128.or(i32x4.shr_u(x, 16), this.ki(0x40));
    return v128.bitselect(nan, rounded, i32x4.gt_s(v128.and(x, this.ki(0x7fffffff)), this.ki(0x7f800000)));
  }
}
