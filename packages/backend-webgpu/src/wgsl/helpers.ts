/**
 * Functions that WGSL lacks or leaves too inexact, written for one element or for four. Branch-free, and without
 * relying on fused multiply-adds: some implementations round between the multiplication and the addition.
 */
export type Helper =
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

/** Names of the float, unsigned, signed and half types of one width, and a constant spread over it. */
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

const DEPENDS: { readonly [H in Helper]?: readonly Helper[] } = {
  roundToF16: ["f16Bits"],
  roundToBf16: ["bf16Bits"],
};

const BODY: { readonly [H in Helper]: (t: Types) => string } = {
  // Odd polynomial near 0 (relative accuracy), exponential form elsewhere (saturates to 1, keeps NaN).
  tanh: ({ F, name }) => `fn ${name("tanh")}(x: ${F}) -> ${F} {
  let a = abs(x);
  let s = x * x;
  let small = fma(x * s, ${poly("s", [-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3])}, x);
  let big = F(1f) - F(2f) / (exp(F(2f) * a) + F(1f));
  return select(sign(x) * big, small, a < F(0.625f));
}`,
  // Two minimax polynomials, 1 ulp each in exact arithmetic.
  erf: ({ F, name }) => `fn ${name("erf")}(x: ${F}) -> ${F} {
  let t = abs(x);
  let s = x * x;
  var r = fma(F(-1.72853470e-5f), t, F(3.83197126e-4f));
  r = fma(r, s, fma(F(-3.88396438e-3f), t, F(2.42546219e-2f)));
  r = fma(fma(fma(fma(r, t, F(-1.06777877e-1f)), t, F(-6.34846687e-1f)), t, F(-1.28717512e-1f)), t, -t);
  let big = sign(x) * (F(1f) - exp(r));
  let small = fma(x, ${poly("s", [1.28379166e-1, -3.76125336e-1, 1.12819925e-1, -2.67681349e-2, 4.99119423e-3, -5.96761703e-4])}, x);
  return select(small, big, t > F(0.927734375f));
}`,
  // sin(x + quarter * pi/2): reduction by pi/2 in three parts with short significands, exact for |x| < 10^4.
  sine: ({ F, I, name }) => `fn ${name("sine")}(x: ${F}, quarter: i32) -> ${F} {
  let q = round(x * 0.636619772f);
  let r = ((x - q * 1.5703125f) - q * 4.83751296997e-4f) - q * 7.54978995489e-8f;
  let n = ${I}(q) + ${I}(quarter);
  let s = r * r;
  let sn = fma(r * s, ${poly("s", [-1.66666672e-1, 8.33338592e-3, -1.98559923e-4, 2.86567956e-6])}, r);
  let cs = fma(s, ${poly("s", [-0.5, 4.16666567e-2, -1.38877297e-3, 2.44677067e-5])}, F(1f));
  let v = select(sn, cs, (n & ${I}(1)) == ${I}(1));
  return select(v, -v, (n & ${I}(2)) == ${I}(2));
}`,
  // Truncated remainder; b is split in two so that quotient * part is exact, then an off-by-one quotient is mended.
  remainder: ({ F, U, u, name }) => `fn ${name("remainder")}(a: ${F}, b: ${F}) -> ${F} {
  let q = trunc(a / b);
  let high = bitcast<${F}>(bitcast<${U}>(b) & ${u("0xfffff000")});
  var r = (a - q * high) - q * (b - high);
  let unit = sign(a) * abs(b);
  r = select(r, r + unit, r * unit < F(0f));
  r = select(r, r - unit, abs(r) >= abs(b));
  return select(r, a, abs(a) < abs(b));
}`,
  // Rounds to nearest, ties to even, in integers: conversions by hardware may round otherwise.
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
  // An `f16`: rounded to nearest in integers first, so that the conversion, which may round either way, is exact. What is
  // beyond the largest becomes an infinity or a NaN.
  nearestF16: ({ U, F, u, half, name }) => `fn ${name("nearestF16")}(x: ${F}) -> ${half} {
  let bits = bitcast<${U}>(x);
  let rounded = (bits + ${u("0xfff")} + ((bits >> ${u("13")}) & ${u("1")})) & ${u("0xffffe000")};
  let beyond = (bits & ${u("0x7fffffff")}) >= ${u("0x477ff000")};
  return ${half}(bitcast<${F}>(select(rounded, bits | ${u("0x7f800000")}, beyond)));
}`,
  // One half of a word (width 1: word, index), or the four halves of two words.
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

/** Collects which helpers a kernel calls, and writes their definitions. */
export class Helpers {
  readonly #used = new Map<string, string>();

  /** A call of `helper`, which is then defined. */
  call(helper: Helper, width: 1 | 4, args: readonly string[]): string {
    this.#define(helper, width);
    return `${helperName(helper, width)}(${args.join(", ")})`;
  }

  #define(helper: Helper, width: 1 | 4): void {
    const name = helperName(helper, width);
    if (this.#used.has(name)) return;
    for (const other of DEPENDS[helper] ?? []) this.#define(other, width);
    const types = typesOf(width);
    this.#used.set(name, BODY[helper](types).replaceAll("F(", `${types.F}(`));
  }

  /** Whether a definition needs `enable f16`. */
  get useF16(): boolean {
    return this.#used.has(helperName("nearestF16", 1)) || this.#used.has(helperName("nearestF16", 4));
  }

  definitions(): string {
    return [...this.#used.values()].join("\n");
  }
}
