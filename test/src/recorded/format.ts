/** The stored form of recorded cases, one line of JSON each, and its parser. */
import type { DType, Shape } from "@tiedlora/core";
import { parseNumber } from "./values.ts";

/** An input: how its values are made (see values.ts), and whether it is a parameter, as modules and optimizers need. */
export interface RecordedInput {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly values: readonly string[];
  readonly parameter: boolean;
}

/** Arguments of a step: `$n` is the n-th value (inputs first, then results), `#inf` a number that JSON lacks, `#none` undefined. */
export type Argument =
  string | number | boolean | null | readonly Argument[] | { readonly [key: string]: Argument };

/** The recorded contents of a tensor. */
export interface Expected {
  /** The name of the tensor in messages: `result 0`, `gradient 1`. */
  readonly what: string;
  readonly dtype: DType;
  /** Null for gradients, which have the shape of their input. */
  readonly shape: Shape | null;
  /** The values at `positions` (values.ts); a null is not compared. */
  readonly values: readonly (number | null)[];
  /** Float32 PyTorch's own error: of the whole tensor, at single positions, and the values that it has instead. */
  readonly own: {
    readonly all: number;
    readonly at: ReadonlyMap<number, number>;
    readonly instead: ReadonlyMap<number, number>;
  };
}

/** How the parameters among the inputs are trained. */
export interface Training {
  readonly optimizer: "sgd" | "adamW";
  readonly options: { readonly [name: string]: number | readonly number[] };
  readonly steps: number;
  /** The number of backward passes that are accumulated for each step. */
  readonly accumulate?: number;
  /** The values of the update mask, by the number of the input. */
  readonly masks?: { readonly [input: string]: string };
}

/** One case: a program over inputs, and its recorded results. */
export interface RecordedCase {
  readonly id: string;
  readonly inputs: readonly RecordedInput[];
  readonly steps: readonly (readonly [name: string, ...args: readonly Argument[]])[];
  readonly outputs: readonly number[];
  /** The numbers of the float inputs that are not differentiated. */
  readonly fixed: readonly number[];
  /** Whether errors are relative to each element, or to the largest element of its tensor. */
  readonly by: "element" | "tensor";
  /** The results, the gradients of their weighted sum, and the gradients of the weighted sum of those gradients. */
  readonly expected: readonly (readonly Expected[])[];
  readonly train: Training | null;
}

interface Line {
  readonly id: string;
  readonly in: readonly string[];
  readonly do: RecordedCase["steps"];
  readonly out: readonly string[];
  readonly fixed?: readonly number[];
  readonly by?: "element";
  readonly want: readonly string[];
  readonly grad?: readonly string[];
  readonly hess?: readonly string[];
  readonly own?: readonly string[];
  readonly train?: Training;
}

const words = (text: string): string[] => text.split(" ").filter((word) => word !== "");
const parseShape = (text: string): number[] => (text === "-" ? [] : text.split(",").map(Number));
const parseValues = (list: readonly string[]): (number | null)[] =>
  list.map((word) => (word === "*" ? null : parseNumber(word)));

function parseInput(text: string): RecordedInput {
  const parameter = text.startsWith("param ");
  const [dtype, shape, ...values] = words(parameter ? text.slice(6) : text);
  return { dtype: dtype as DType, shape: parseShape(shape!), values, parameter };
}

function parseOwn(text: string): Expected["own"] {
  const [at, instead] = [new Map<number, number>(), new Map<number, number>()];
  let all = 0;
  for (const word of words(text)) {
    const [position, value] = word.split(/[:=]/);
    if (value === undefined) all = Number(position);
    else (word.includes("=") ? instead : at).set(Number(position), parseNumber(value));
  }
  return { all, at, instead };
}

function parseLine(line: Line): RecordedCase {
  let tensors = 0;
  const own = (): Expected["own"] => parseOwn(line.own?.[tensors++] ?? "");
  const results = line.want.map((text, i): Expected => {
    const [dtype, shape, ...rest] = words(text);
    const values = parseValues(rest);
    return {
      what: `result ${i}`,
      dtype: dtype as DType,
      shape: parseShape(shape!),
      values,
      own: own(),
    };
  });
  const gradients = (what: string, list: readonly string[]): Expected[] =>
    list.map((text, i) => ({
      what: `${what} ${i}`,
      dtype: "f32",
      shape: null,
      values: parseValues(words(text)),
      own: own(),
    }));
  const expected = [results];
  if (line.grad) expected.push(gradients("gradient", line.grad));
  if (line.hess) expected.push(gradients("second gradient", line.hess));
  return {
    id: line.id,
    inputs: line.in.map(parseInput),
    steps: line.do,
    outputs: line.out.map((ref) => Number(ref.slice(1))),
    fixed: line.fixed ?? [],
    by: line.by ?? "tensor",
    expected,
    train: line.train ?? null,
  };
}

/** Parses a text with one case a line. */
export function parseCases(text: string): RecordedCase[] {
  return text
    .trim()
    .split("\n")
    .map((line) => parseLine(JSON.parse(line) as Line));
}
