/**
 * Functions that WGSL lacks or leaves too inexact, for one element or for four. They branch only for large angles, and do not
 * rely on fused multiply-adds, because some implementations round between the multiplication and the addition.
 */
export type Helper =
  | "opaque"
  | "isNaN"
  | "largest"
  | "smallest"
  | "toI32"
  | "toU32"
  | "exp"
  | "expm1"
  | "logOf"
  | "log"
  | "log1p"
  | "highWord"
  | "turnWord"
  | "reduced"
  | "tanh"
  | "erf"
  | "sine"
  | "remainder"
  | "f16Bits"
  | "bf16Bits"
  | "roundToF16"
  | "roundToBf16"
  | "nearestF16"
  | "wideBf16"
  | "wideF16"
  | "packHalves";

/**
 * For one width: the names of the float, unsigned, signed and half types, an unsigned constant (`u`), and the names of
 * helpers.
 */
interface Types {
  readonly width: 1 | 4;
  readonly F: string;
  readonly U: string;
  readonly half: string;
  readonly I: string;
  readonly u: (hex: string) => string;
  readonly name: (helper: Helper) => string;
}

function typesOf(width: 1 | 4): Types {
  const of = (t: string): string => (width === 1 ? t : `vec4<${t}>`);
  const U = of("u32");
  return {
    width,
    F: of("f32"),
    U,
    I: of("i32"),
    half: of("f16"),
    u: (x) => (width === 1 ? `${x}u` : `${U}(${x}u)`),
    name: (helper) => helperName(helper, width),
  };
}

/** The name under which a helper of this width is defined. */
function helperName(helper: Helper, width: 1 | 4): string {
  return width === 1 ? `${helper}_` : `${helper}4_`;
}

const poly = (x: string, coefficients: readonly number[]): string =>
  coefficients.reduceRight((sum, c) => (sum === "" ? `F(${c}f)` : `fma(${sum}, ${x}, F(${c}f))`), "");

/** Coefficients of q in exp r = 1 + r + r² q(r), fitted for the least relative error on |r| <= ln 2 / 2. */
const EXP: readonly number[] = [
  4.9999994039e-1, 1.6666521132e-1, 4.1668392718e-2, 8.3687454462e-3, 1.3814535923e-3,
];
/** Coefficients of p in log(1 + r) = r - r²/2 + r³ p(r) (Cephes). */
const LOG: readonly number[] = [
  3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1, -1.2420140846e-1,
  1.167699874e-1, -1.151461031e-1, 7.0376836292e-2,
];
/** The bits of 2/pi, 32 per word. */
const TWO_OVER_PI: readonly number[] = [
  0x28be60db, 0x9391054a, 0x7f09d5f4, 0x7d4d3770, 0x36d8a566, 0x4f10e410, 0x7f9458ea,
];

/**
 * Splits x = n ln 2 + r with |r| <= ln 2 / 2, where x is x0, limited to the range in which exponentials differ from their
 * limits.
 */
const splitExponent = (
  low: number,
  name: Types["name"],
): string => `let x = select(select(x0, F(89.5f), x0 > F(89.5f)), F(${low}f), x0 < F(${low}f));
  let n = round(x * F(1.44269504f));
  let high = fma(n, F(-0.693145751953125f), x);
  let r = fma(n, F(-1.428606765330187e-6f), ${name("opaque")}(high));`;

const boolOf = (F: string): string => F.replace("f32", "bool");

/**
 * The larger or smaller, NaN if either is NaN. NaNs are detected by their bits, because compilers may assume that there are
 * none.
 */
const extreme =
  (helper: "largest" | "smallest", builtin: "max" | "min") =>
  ({ F, name }: Types): string => `fn ${name(helper)}(a: ${F}, b: ${F}) -> ${F} {
  return select(select(${builtin}(a, b), b, ${name("isNaN")}(b)), a, ${name("isNaN")}(a));
}`;

const DEPENDS: { readonly [H in Helper]?: readonly Helper[] } = {
  largest: ["isNaN"],
  smallest: ["isNaN"],
  toI32: ["isNaN"],
  toU32: ["isNaN"],
  exp: ["isNaN", "opaque"],
  expm1: ["isNaN", "opaque"],
  log: ["logOf"],
  log1p: ["logOf"],
  tanh: ["expm1"],
  erf: ["exp"],
  sine: ["reduced"],
  reduced: ["highWord", "turnWord"],
  roundToF16: ["f16Bits"],
  roundToBf16: ["bf16Bits"],
};

const BODY: { readonly [H in Helper]: (t: Types) => string } = {
  // The same number, but opaque to compilers, which otherwise reorder sums as if they were exact, and make x - x zero.
  opaque: ({ F, U, name }) => `fn ${name("opaque")}(x: ${F}) -> ${F} {
  return bitcast<${F}>(bitcast<${U}>(x) ^ ${U}(P[0].x));
}`,
  isNaN: ({ F, U, u, name }) => `fn ${name("isNaN")}(x: ${F}) -> ${boolOf(F)} {
  return (bitcast<${U}>(x) & ${u("0x7fffffff")}) > ${u("0x7f800000")};
}`,
  largest: extreme("largest", "max"),
  smallest: extreme("smallest", "min"),
  // Out of range gives the nearest end, NaN gives 0: WGSL's conversion stops at the largest f32 below 2^31, and leaves NaN open.
  toI32: ({ F, I, name }) => `fn ${name("toI32")}(x: ${F}) -> ${I} {
  let inside = ${I}(clamp(x, F(-2147483648f), F(2147483520f)));
  return select(select(inside, ${I}(2147483647), x >= F(2147483648f)), ${I}(), ${name("isNaN")}(x));
}`,
  toU32: ({ F, U, u, name }) => `fn ${name("toU32")}(x: ${F}) -> ${U} {
  let inside = ${U}(clamp(x, F(0f), F(4294967040f)));
  return select(select(inside, ${u("0xffffffff")}, x >= F(4294967296f)), ${U}(), ${name("isNaN")}(x));
}`,
  // With x = n ln 2 + r: the exponential of r by a polynomial (0.05 ulp), times 2^n as two factors that do not overflow.
  exp: ({ F, I, U, u, name }) => `fn ${name("exp")}(x0: ${F}) -> ${F} {
  ${splitExponent(-104.5, name)}
  let p = fma(r * r, ${poly("r", EXP)}, r) + F(1f);
  let k = ${I}(n);
  let h = k >> ${u("1")};
  let scaled = (p * bitcast<${F}>((h + ${I}(127)) << ${U}(23u))) * bitcast<${F}>((k - h + ${I}(127)) << ${U}(23u));
  return select(scaled, x0, ${name("isNaN")}(x0));
}`,
  expm1: ({ F, I, U, name }) => `fn ${name("expm1")}(x0: ${F}) -> ${F} {
  ${splitExponent(-30, name)}
  let q = fma(r * r, ${poly("r", EXP)}, r);
  let s = bitcast<${F}>((${I}(n) + ${I}(126)) << ${U}(23u));
  let middle = fma(s, q, s - F(0.5f));
  return select(middle + middle, x0, ${name("isNaN")}(x0));
}`,
  // log x0, where x = x0 · 2^shift = 2^(e + shift) · m with m in [√½, √2), by Cephes' polynomial in m - 1; `near` replaces m - 1
  // where e + shift is 0.
  logOf: ({ F, U, I, u, name }) => `fn ${name("logOf")}(x0: ${F}, x: ${F}, shift: ${F}, near: ${F}) -> ${F} {
  let up = bitcast<${I}>(x) - ${I}(0x3f3504f3);
  let k = up >> ${U}(23u);
  let e = F(k) - shift;
  let m = bitcast<${F}>((up & ${I}(0x7fffff)) + ${I}(0x3f3504f3));
  let r = select(m - F(1f), near, k == ${I}());
  let r2 = r * r;
  let p = ${poly("r", LOG)};
  let tail = fma(r2, F(-0.5f), fma(r2 * r, p, e * F(-2.1219444e-4f)));
  let y = fma(e, F(0.693359375f), r + tail);
  let bits = bitcast<${U}>(x0);
  var value = select(y, F(bitcast<f32>(P[0].y)), bits > ${u("0x7f800000")});
  value = select(value, x0, bits == ${u("0x7f800000")});
  return select(value, F(bitcast<f32>(P[0].w)), (bits & ${u("0x7fffffff")}) == ${U}());
}`,
  // A subnormal x is its bits, as an integer, times 2^-149; the integer is not flushed to zero.
  log: ({ F, U, u, name }) => `fn ${name("log")}(x: ${F}) -> ${F} {
  let bits = bitcast<${U}>(x);
  let small = bits < ${u("0x800000")};
  let whole = select(x, ${F}(bits), small);
  return ${name("logOf")}(x, whole, select(F(0f), F(149f), small), whole - F(1f));
}`,
  log1p: ({ F, name }) => `fn ${name("log1p")}(x: ${F}) -> ${F} {
  let sum = x + F(1f);
  return ${name("logOf")}(sum, sum, F(0f), x);
}`,
  // t / (t + 2) with t = expm1(2 |x|), which stays finite.
  tanh: ({ F, U, u, name }) => `fn ${name("tanh")}(x: ${F}) -> ${F} {
  let size = select(abs(x), F(10f), abs(x) > F(10f));
  let t = ${name("expm1")}(size + size);
  let y = t / (t + F(2f));
  return bitcast<${F}>(bitcast<${U}>(y) | (bitcast<${U}>(x) & ${u("0x80000000")}));
}`,
  // Two minimax polynomials, 1 ulp each in exact arithmetic.
  erf: ({ F, name }) => `fn ${name("erf")}(x: ${F}) -> ${F} {
  let t = abs(x);
  let s = x * x;
  var r = fma(F(-1.72853470e-5f), t, F(3.83197126e-4f));
  r = fma(r, s, fma(F(-3.88396438e-3f), t, F(2.42546219e-2f)));
  r = fma(fma(fma(fma(r, t, F(-1.06777877e-1f)), t, F(-6.34846687e-1f)), t, F(-1.28717512e-1f)), t, -t);
  let big = sign(x) * (F(1f) - ${name("exp")}(r));
  let small = fma(x, ${poly("s", [1.28379166e-1, -3.76125336e-1, 1.12819925e-1, -2.67681349e-2, 4.99119423e-3, -5.96761703e-4])}, x);
  return select(small, select(big, sign(x), t > F(4f)), t > F(0.927734375f));
}`,
  // sin(x + quarter * pi/2): reduction by pi/2 in three parts with short significands, exact for |x| < 10^4.
  sine: ({ F, I, name }) => `fn ${name("sine")}(x: ${F}, quarter: i32) -> ${F} {
  let q = round(x * 0.636619772f);
  var r = ((x - q * 1.5703125f) - q * 4.83751296997e-4f) - q * 7.54978995489e-8f;
  var n = ${I}(q);
  let large = abs(x) > F(10000f);
  if (any(large)) {
    var turns = n;
    let rest = ${name("reduced")}(x, &turns);
    r = select(r, rest, large);
    n = select(n, turns, large);
  }
  n += ${I}(quarter);
  let s = r * r;
  let sn = fma(r * s, ${poly("s", [-1.66666672e-1, 8.33338592e-3, -1.98559923e-4, 2.86567956e-6])}, r);
  let cs = fma(s, ${poly("s", [-0.5, 4.16666567e-2, -1.38877297e-3, 2.44677067e-5])}, F(1f));
  let v = select(sn, cs, (n & ${I}(1)) == ${I}(1));
  return select(v, -v, (n & ${I}(2)) == ${I}(2));
}`,
  // The high word of a product.
  highWord: ({ U, u, name }) => `fn ${name("highWord")}(a: ${U}, b: ${U}) -> ${U} {
  let low = (a & ${u("0xffff")}) * (b & ${u("0xffff")});
  let mid = (a >> ${u("16")}) * (b & ${u("0xffff")}) + (low >> ${u("16")});
  let cross = (a & ${u("0xffff")}) * (b >> ${u("16")}) + (mid & ${u("0xffff")});
  return (a >> ${u("16")}) * (b >> ${u("16")}) + (mid >> ${u("16")}) + (cross >> ${u("16")});
}`,
  // Word i of 2/pi, preceded by a word of zeros: word 1 is the first of TWO_OVER_PI.
  turnWord: ({ U, u, name }) => `fn ${name("turnWord")}(i: ${U}) -> ${U} {
  var word = ${U}();
${TWO_OVER_PI.map((digits, i) => `  word = select(word, ${u(String(digits))}, i == ${u(String(i + 1))});`).join("\n")}
  return word;
}`,
  // Splits x = n pi/2 + r for any |x| >= 2 (Payne and Hanek): computes 64 bits of x · 2/pi from the 96 bits of 2/pi that matter.
  reduced: ({ F, I, U, u, name }) => `fn ${name("reduced")}(x: ${F}, n: ptr<function, ${I}>) -> ${F} {
  let bits = bitcast<${U}>(x) & ${u("0x7fffffff")};
  let m = ((bits & ${u("0x7fffff")}) << ${u("8")}) | ${u("0x80000000")};
  let e = (bits >> ${u("23")}) - ${u("126")};
  let i = e >> ${u("5")};
  let s = e & ${u("31")};
  let back = (${u("32")} - s) & ${u("31")};
  let w0 = ${name("turnWord")}(i);
  let w1 = ${name("turnWord")}(i + ${u("1")});
  let w2 = ${name("turnWord")}(i + ${u("2")});
  let w3 = ${name("turnWord")}(i + ${u("3")});
  let high = select((w0 << s) | (w1 >> back), w0, s == ${U}());
  let mid = select((w1 << s) | (w2 >> back), w1, s == ${U}());
  let low = select((w2 << s) | (w3 >> back), w2, s == ${U}());
  let carry = ${name("highWord")}(m, low);
  let p0 = m * mid + carry;
  let p1 = ${name("highWord")}(m, mid) + select(${U}(), ${u("1")}, p0 < carry) + m * high;
  let up = (p1 & ${u("0x20000000")}) != ${U}();
  let quadrant = ${I}((p1 >> ${u("30")}) + select(${U}(), ${u("1")}, up));
  let part = p1 & ${u("0x3fffffff")};
  let rest = ${u("0x40000000")} - part - select(${U}(), ${u("1")}, p0 != ${U}());
  let size = (F(select(part, rest, up)) * F(4294967296f) + F(select(p0, ~p0 + ${u("1")}, up))) * F(3.40612158e-19f);
  let negative = x < F(0f);
  *n = select(quadrant, -quadrant, negative);
  return select(select(size, -size, up != negative), F(bitcast<f32>(P[0].y)), bits >= ${u("0x7f800000")});
}`,
  // Truncated remainder; b is split in two so that quotient * part is exact, then an off-by-one quotient is corrected.
  remainder: ({ F, U, u, name }) => `fn ${name("remainder")}(a: ${F}, b: ${F}) -> ${F} {
  let q = trunc(a / b);
  let high = bitcast<${F}>(bitcast<${U}>(b) & ${u("0xfffff000")});
  var r = (a - q * high) - q * (b - high);
  let unit = sign(a) * abs(b);
  r = select(r, r + unit, r * unit < F(0f));
  r = select(r, r - unit, abs(r) >= abs(b));
  return select(r, a, abs(a) < abs(b));
}`,
  // Rounds to nearest, ties to even, in integer arithmetic, because hardware conversions may round differently.
  f16Bits: ({ F, U, u, name }) => `fn ${name("f16Bits")}(x: ${F}) -> ${U} {
  let bits = bitcast<${U}>(x);
  let m = bits & ${u("0x7fffffff")};
  let subnormal = ${U}(round(abs(x) * 16777216f));
  let normal = (m + ${u("0xfff")} + ((m >> ${u("13")}) & ${u("1")}) - ${u("0x38000000")}) >> ${u("13")};
  var h = select(normal, subnormal, m < ${u("0x38800000")});
  h = select(h, ${u("0x7c00")}, m >= ${u("0x477ff000")});
  h = select(h, ${u("0x7e00")}, m > ${u("0x7f800000")});
  return h | ((bits >> ${u("16")}) & ${u("0x8000")});
}`,
  bf16Bits: ({ F, U, u, name }) => `fn ${name("bf16Bits")}(x: ${F}) -> ${U} {
  let bits = bitcast<${U}>(x);
  let rounded = (bits + ${u("0x7fff")} + ((bits >> ${u("16")}) & ${u("1")})) >> ${u("16")};
  return select(rounded, (bits >> ${u("16")}) | ${u("0x40")}, (bits & ${u("0x7fffffff")}) > ${u("0x7f800000")});
}`,
  roundToF16: ({ F, U, u, name }) => `fn ${name("roundToF16")}(x: ${F}) -> ${F} {
  let h = ${name("f16Bits")}(x);
  let m = h & ${u("0x7fff")};
  let subnormal = bitcast<${U}>(${F}(m) * 5.9604644775390625e-8f);
  var f = select((m << ${u("13")}) + ${u("0x38000000")}, subnormal, m < ${u("0x400")});
  f = select(f, (m << ${u("13")}) | ${u("0x7f800000")}, m >= ${u("0x7c00")});
  return bitcast<${F}>(f | ((h & ${u("0x8000")}) << ${u("16")}));
}`,
  roundToBf16: ({ F, u, name }) => `fn ${name("roundToBf16")}(x: ${F}) -> ${F} {
  return bitcast<${F}>(${name("bf16Bits")}(x) << ${u("16")});
}`,
  // Converts to `f16`. Rounds to nearest in integer arithmetic first, so that the conversion, which may round either way, is
  // exact. Numbers beyond the largest f16 become an infinity or a NaN.
  nearestF16: ({ U, F, u, half, name }) => `fn ${name("nearestF16")}(x: ${F}) -> ${half} {
  let bits = bitcast<${U}>(x);
  let rounded = (bits + ${u("0xfff")} + ((bits >> ${u("13")}) & ${u("1")})) & ${u("0xffffe000")};
  let beyond = (bits & ${u("0x7fffffff")}) >= ${u("0x477ff000")};
  return ${half}(bitcast<${F}>(select(rounded, bits | ${u("0x7f800000")}, beyond)));
}`,
  // Width 1: one half of a word, by its index. Width 4: the four halves of two words.
  wideBf16: ({ name, width }) =>
    width === 4
      ? `fn ${name("wideBf16")}(w: vec2<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u));
}`
      : `fn ${name("wideBf16")}(word: u32, i: u32) -> f32 {
  return bitcast<f32>((word << ((1u - (i & 1u)) * 16u)) & 0xffff0000u);
}`,
  wideF16: ({ name, width }) =>
    width === 4
      ? `fn ${name("wideF16")}(w: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}`
      : `fn ${name("wideF16")}(word: u32, i: u32) -> f32 {
  return unpack2x16float(word >> ((i & 1u) * 16u)).x;
}`,
  packHalves: ({ name }) => `fn ${name("packHalves")}(h: vec4<u32>) -> vec2<u32> {
  return vec2<u32>(h.x | (h.y << 16u), h.z | (h.w << 16u));
}`,
};

/** All definitions that were written so far, by name. */
const definitions = new Map<string, string>();

/** Collects which helpers a kernel calls, and writes their definitions. */
export class Helpers {
  readonly #used = new Map<string, string>();

  /** A call of `helper`, whose definition is added to the kernel. */
  call(helper: Helper, width: 1 | 4, args: readonly string[]): string {
    this.#define(helper, width);
    return `${helperName(helper, width)}(${args.join(", ")})`;
  }

  #define(helper: Helper, width: 1 | 4): void {
    const name = helperName(helper, width);
    if (this.#used.has(name)) return;
    for (const other of DEPENDS[helper] ?? []) this.#define(other, width);
    let definition = definitions.get(name);
    if (definition === undefined) {
      const types = typesOf(width);
      definitions.set(name, (definition = BODY[helper](types).replaceAll("F(", `${types.F}(`)));
    }
    this.#used.set(name, definition);
  }

  /** Whether a definition needs `enable f16`. */
  get useF16(): boolean {
    return this.#used.has(helperName("nearestF16", 1)) || this.#used.has(helperName("nearestF16", 4));
  }

  definitions(): string {
    return [...this.#used.values()].join("\n");
  }
}
