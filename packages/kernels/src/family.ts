/**
 * What was planned at several sizes, and from it the plan at other sizes. On one path through a planner, plans differ only in numbers, and
 * each number is a polynomial in the sizes. Planners compare sizes by the functions below, which record the comparisons: the path is the
 * same wherever all of them have the same outcome.
 * @module
 */

/** A comparison of two numbers. */
interface Comparison {
  readonly kind: number;
  readonly left: number;
  readonly right: number;
  readonly outcome: number;
}

/** The comparisons that were made, in order. A planner makes the same ones again and again, so each is kept once. */
export interface Path {
  readonly distinct: readonly Comparison[];
  /** Numbers of `distinct`. */
  readonly order: Uint32Array;
}

/** By kind: the outcome of a comparison, as a number. */
const COMPARE: readonly ((a: number, b: number) => number)[] = [
  (a, b) => Number(a < b),
  (a, b) => Number(a === b),
  (a, b) => Number(b % a === 0),
  (a, b) => b % a,
  (a, b) => Number(Object.is(a, b)),
];

/** Collects a path. */
class Recorder {
  readonly #distinct: Comparison[] = [];
  readonly #order: number[] = [];
  /** The number of each comparison, by kind, left and right. */
  readonly #numbers = COMPARE.map(() => new Map<number, Map<number, number>>());
  /** The numbers of those that came last, by a hash: most come again and again. */
  readonly #latest = new Int32Array(1024);

  add(kind: number, left: number, right: number, outcome: number): void {
    const hash = (31 * left + 7 * right + kind) & 1023;
    const latest = this.#distinct[this.#latest[hash]!];
    if (latest?.kind === kind && Object.is(latest.left, left) && Object.is(latest.right, right)) {
      this.#order.push(this.#latest[hash]!);
      return;
    }
    const ofKind = this.#numbers[kind]!;
    let ofLeft = ofKind.get(left);
    if (!ofLeft) ofKind.set(left, (ofLeft = new Map()));
    let number = ofLeft.get(right);
    if (number === undefined) {
      number = this.#distinct.push({ kind, left, right, outcome }) - 1;
      ofLeft.set(right, number);
    }
    this.#latest[hash] = number;
    this.#order.push(number);
  }

  get path(): Path {
    return { distinct: this.#distinct, order: Uint32Array.from(this.#order) };
  }
}

let recorder: Recorder | null = null;

function compared(kind: number, a: number, b: number): number {
  const outcome = COMPARE[kind]!(a, b);
  recorder?.add(kind, a, b, outcome);
  return outcome;
}

/** a < b, for sizes and what is computed of them. */
export const less = (a: number, b: number): boolean => (recorder ? compared(0, a, b) === 1 : a < b);
/** a = b. */
export const same = (a: number, b: number): boolean => (recorder ? compared(1, a, b) === 1 : a === b);
/** Whether all numbers of two lists are equal, bit for bit: NaN is equal to itself, and 0 not to -0. */
export function allSame(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const is = (a[i] === b[i] && a[i] !== 0) || Object.is(a[i], b[i]);
    recorder?.add(4, a[i]!, b[i]!, Number(is));
    if (!is) return false;
  }
  return true;
}
/** Whether b is a multiple of a. */
export const divides = (a: number, b: number): boolean => compared(2, a, b) === 1;
/** ⌊b / a⌋, for a > 0. */
export const quotient = (a: number, b: number): number => {
  if (a !== 1) compared(3, a, b);
  return Math.floor(b / a);
};

/** The result of `work`, and the comparisons that it made. */
export function recorded<T>(work: () => T): { readonly value: T; readonly path: Path } {
  const outer = recorder;
  const own = (recorder = new Recorder());
  try {
    return { value: work(), path: own.path };
  } finally {
    recorder = outer;
  }
}

/** Whether all comparisons were of the same kinds, with the same outcomes. */
export function isSamePath(a: Path, b: Path): boolean {
  if (a.order.length !== b.order.length) return false;
  const known = new Int32Array(a.distinct.length).fill(-1); // by comparison of a: the latest of b that it was found to be like
  for (let i = 0; i < a.order.length; i++) {
    const [number, otherNumber] = [a.order[i]!, b.order[i]!];
    if (known[number] === otherNumber) continue;
    const [one, other] = [a.distinct[number]!, b.distinct[otherNumber]!];
    if (one.kind !== other.kind || one.outcome !== other.outcome) return false;
    known[number] = otherNumber;
  }
  return true;
}

/** A plan, which consists of numbers, strings and booleans in arrays and records; the sizes that it is for; and the planner's path. */
export interface Sample<T> {
  readonly sizes: readonly number[];
  readonly value: T;
  readonly path: Path;
}

/** The plan at `sizes`; null if the planner might take another path there. */
export type Family<T> = (sizes: readonly number[]) => T | null;

/** This many plans make a family if its numbers are affine: two determine them, and the third confirms them. */
export const FEWEST = 3;
/** This many make any family: three determine polynomials of degree 2, and the fourth confirms them. */
export const ENOUGH = 4;

/**
 * The family of plans at sizes along one line; null if their numbers are no polynomials in the first size that differs, or are not affine and
 * the samples too few to confirm it.
 */
export function familyOf<T>(samples: readonly Sample<T>[]): Family<T> | null {
  const all = samples.map(({ sizes }) => sizes);
  const at = all[0]?.findIndex((size, k) => all.some((sizes) => sizes[k] !== size)) ?? -1;
  const lengths = all.map((sizes) => sizes[at] ?? NaN);
  const isLine = all.every((sizes) => sizes.length === all[0]!.length && Number.isSafeInteger(sizes[at]));
  if (at < 0 || !isLine || new Set(lengths).size < samples.length) return null;
  // if lengths are multiples of 32, there may be numbers of 32nds
  const common = lengths.reduce((sum, n) => divisor(sum, Math.abs(n - lengths[0]!)), 0);
  return familyAlong(samples, at, 1) ?? (common > 1 ? familyAlong(samples, at, common) : null);
}

/** The family at sizes whose number `at` is that of the first sample plus a multiple of `step`. */
function familyAlong<T>(samples: readonly Sample<T>[], at: number, step: number): Family<T> | null {
  const all = samples.map(({ sizes }) => sizes);
  try {
    const line = lineThrough(all, at, step);
    const form = formOf(samples.map(({ value }) => value), line); // prettier-ignore
    const guards = guardsOf(samples.map((sample) => sample.path), line); // prettier-ignore
    return (sizes) => {
      const point = line.at(sizes);
      if (!point || !guards.every((holds) => holds(point))) return null;
      return form.make ? form.make(point) : form.fixed;
    };
  } catch (cause) {
    if (cause instanceof NoForm) return null;
    throw cause;
  }
}

class NoForm extends Error {}

// --- numbers

/** Sizes: those of a plan, and how far along the line they are. */
interface Point {
  readonly u: number;
  readonly sizes: readonly number[];
}

type Formula = (at: Point) => number;

interface Line {
  /** The formula of numbers given at the samples. Throws a NoForm if there is none. */
  formula(values: readonly number[]): Formula;
  /** Null if the sizes are not on the line, or if one is 0 or 1 that is not always: axes of these lengths are treated apart. */
  at(sizes: readonly number[]): Point | null;
}

/**
 * The line through the sizes of samples, counted in steps of size number `at`. Throws a NoForm if a length is no polynomial, such as the
 * ⌈n / 2⌉ of every second element: what planners compute of it, such as its bytes 4 · ⌈n / 2⌉, can be one at the samples alone.
 */
function lineThrough(samples: readonly (readonly number[])[], at: number, step: number): Line {
  const first = samples[0]!;
  const us = samples.map((sizes) => (sizes[at]! - first[at]!) / step);
  /** Numbers among the sizes, such as the 1 / n of a mean, that are no polynomials: their places. */
  const free: number[] = [];
  const valuesOf = (k: number): number[] => samples.map((sizes) => sizes[k]!);
  const known = new Map<string, Formula>();
  const formula = (values: readonly number[]): Formula => {
    const key = values.map((value) => (Object.is(value, -0) ? "-0" : value)).join();
    let own = known.get(key);
    if (!own) known.set(key, (own = fixed(values) ?? polynomial(us, values) ?? copyOf(free, valuesOf, values) ?? refuse())); // prettier-ignore
    return own;
  };
  const formulas: Formula[] = [];
  for (const [k] of first.entries()) {
    const values = valuesOf(k);
    let own = fixed(values) ?? polynomial(us, values) ?? copyOf(free, valuesOf, values);
    if (!own) {
      if (values.every(Number.isSafeInteger)) return refuse();
      free.push(k);
      own = (point) => point.sizes[k]!;
    }
    formulas.push(own);
  }
  const varying = formulas.filter((_, k) => !fixed(valuesOf(k)) && valuesOf(k).every(Number.isSafeInteger));
  return {
    formula,
    at: (sizes) => {
      const u = (sizes[at]! - first[at]!) / step;
      const point = { u, sizes };
      if (!Number.isSafeInteger(u) || sizes.length !== first.length) return null;
      if (!formulas.every((own, k) => Object.is(own(point), sizes[k]))) return null;
      return varying.some((own) => own(point) === 0 || own(point) === 1) ? null : point;
    },
  };
}

const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));

function fixed(values: readonly number[]): Formula | null {
  const [value] = values as [number];
  return values.every((other) => Object.is(other, value)) ? () => value : null;
}

/** The polynomial with whole divided differences through `values` at `us`, if there is one of a degree that they confirm; us[0] is 0. */
function polynomial(us: readonly number[], values: readonly number[]): Formula | null {
  if (!values.every(Number.isSafeInteger)) return null;
  const [, u1, u2] = us as [number, number, number];
  const [n0, n1, n2] = values as [number, number, number];
  const slope = (n1 - n0) / u1;
  const bend = ((n2 - n1) / (u2 - u1) - slope) / u2;
  if (!Number.isSafeInteger(slope) || !Number.isSafeInteger(bend)) return null;
  if (bend !== 0 && us.length < ENOUGH) return null;
  const value = (u: number): number => n0 + u * (slope + bend * (u - u1));
  if (!us.every((u, i) => value(u) === values[i])) return null;
  return ({ u }) => value(u);
}

/** A copy of one of the `free` sizes, perhaps rounded to f32. */
function copyOf(
  free: readonly number[],
  valuesOf: (k: number) => readonly number[],
  values: readonly number[],
): Formula | null {
  for (const k of free) {
    const sizes = valuesOf(k);
    if (values.every((value, i) => Object.is(value, sizes[i]))) return ({ sizes: own }) => own[k]!;
    if (values.every((value, i) => Object.is(value, Math.fround(sizes[i]!))))
      return ({ sizes: own }) => Math.fround(own[k]!);
  }
  return null;
}

function refuse(): never {
  throw new NoForm();
}

// --- plans

/** Either the same at all sizes, or how it is made. */
type Form<T> =
  { readonly fixed: T; readonly make?: never } | { readonly fixed?: never; readonly make: (at: Point) => T };

function formOf<T>(values: readonly T[], line: Line): Form<T> {
  const [first] = values as readonly [T];
  if (values.every((value) => Object.is(value, first))) return { fixed: first };
  if (values.every((value) => typeof value === "number"))
    return { make: line.formula(values) as (at: Point) => unknown as (at: Point) => T };
  if (!values.every((value) => typeof value === "object" && value !== null)) return refuse();
  const records = values as readonly Readonly<Record<string, unknown>>[];
  const keys = Object.keys(records[0]!);
  const isAlike = (other: object): boolean =>
    Object.getPrototypeOf(other) === Object.getPrototypeOf(first) &&
    Object.keys(other).length === keys.length;
  if (!records.every(isAlike)) return refuse();
  const varying = keys.flatMap((key): [string, (at: Point) => unknown][] => {
    const { make } = formOf(records.map((record) => (key in record ? record[key] : refuse())), line); // prettier-ignore
    return make ? [[key, make]] : [];
  });
  return varying.length === 0 ? { fixed: first } : { make: withParts(first, varying) };
}

/** Makes copies of `first` in which some parts are made anew. Apart from `formOf`, so that the other samples are not kept. */
function withParts<T>(
  first: T,
  varying: readonly (readonly [string, (at: Point) => unknown])[],
): (at: Point) => T {
  return (at) => {
    const copy = Array.isArray(first) ? [...(first as unknown[])] : { ...first };
    const made = copy as Record<string, unknown>;
    for (const [key, make] of varying) made[key] = make(at);
    return made as T;
  };
}

/** Whether each comparison of the samples' path has the same outcome at other sizes; comparisons of fixed numbers have. */
function guardsOf(paths: readonly Path[], line: Line): ((at: Point) => boolean)[] {
  const [first, ...others] = paths as [Path, ...Path[]];
  if (!others.every((other) => isSamePath(first, other))) return refuse();
  const guards: ((at: Point) => boolean)[] = [];
  const seen = new Set<string>();
  const latest: number[][] = []; // by comparison of the first path, those of the others at the same place: nearly always the same
  for (let i = 0; i < first.order.length; i++) {
    const number = first.order[i]!;
    const known = latest[number];
    if (known && others.every(({ order }, p) => order[i] === known[p])) continue;
    latest[number] = others.map(({ order }) => order[i]!);
    const key = [number, ...latest[number]].join();
    if (seen.has(key)) continue;
    seen.add(key);
    const all = paths.map(({ distinct, order }) => distinct[order[i]!]!);
    const [left, right] = [all.map((one) => one.left), all.map((one) => one.right)];
    const isFixed = fixed(left) !== null && fixed(right) !== null;
    if (!isFixed) guards.push(guardOf(all[0]!, line.formula(left), line.formula(right)));
  }
  return guards;
}

function guardOf({ kind, outcome }: Comparison, left: Formula, right: Formula): (at: Point) => boolean {
  const compare = COMPARE[kind]!;
  return (at) => compare(left(at), right(at)) === outcome;
}
