/** Recorded cases as they are stored: one line of JSON each, read into what a runner needs. */
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

/** What a tensor has to hold. */
export interface Expected {
  /** For messages: `result 0`, `gradient 1`. */
  readonly what: string;
  readonly dtype: DType;
  /** Null where it is that of an input. */
  readonly shape: Shape | null;
  /** At `positions`; null is not compared. */
  readonly values: readonly (number | null)[];
  /** The error that float32 PyTorch has: of the whole tensor, at single positions, and values that it has instead. */
  readonly own: {
    readonly all: number;
    readonly at: ReadonlyMap<number, number>;
    readonly instead: ReadonlyMap<number, number>;
  };
}

/** How an optimizer trains the parameters among the inputs. */
export interface Training {
  readonly optimizer: "sgd" | "adamW";
  readonly options: { readonly [name: string]: number | readonly number[] };
  readonly steps: number;
  /** Backward passes that are gathered for each step. */
  readonly accumulate?: number;
  /** By input: the values of its mask. */
  readonly masks?: { readonly [input: string]: string };
}

/** One case: a program over inputs, and what it gives. */
export interface RecordedCase {
  readonly id: string;
  readonly inputs: readonly RecordedInput[];
  readonly steps: readonly (readonly [name: string, ...args: readonly Argument[]])[];
  readonly outputs: readonly number[];
  /** Positions of float inputs that are not differentiated. */
  readonly fixed: readonly number[];
  /** Whether errors are relative to each element, or to the largest of its tensor. */
  readonly by: "element" | "tensor";
  /** Results, gradients of the weighted sum of the results, gradients of the weighted sum of those. */
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

/** The cases of a text of lines. */
export function parseCases(text: string): RecordedCase[] {
  return text
    .trim()
    .split("\n")
    .map((line) => parseLine(JSON.parse(line) as Line));
}
