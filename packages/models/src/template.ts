/**
 * Renders chat templates. They come with a model and are not trusted: the number of evaluations is bounded, so that a template
 * that never ends is an error, in Node and in browsers alike.
 */
import { isRecord } from "@tiedlora/core";
import { Environment, Interpreter, Template } from "@huggingface/jinja";

/** The most steps of a rendering; a long chat with a large template takes about ten thousand. */
const MAX_STEPS = 300_000;
/** The most characters of one text; below, those of the source, and the most elements of one range. */
const MAX_LENGTH = 10_000_000;
const MAX_SOURCE = 100_000;
const MAX_RANGE = 10_000;

/** The part of @huggingface/jinja that is used here; the package's own declarations do not resolve in strict projects. */
interface Value {
  readonly value: unknown;
}
interface Evaluator {
  evaluate(statement: unknown, environment: unknown): Value;
  run(program: unknown): Value;
}
interface Variables {
  set(name: string, value: unknown): void;
}
const Base = Interpreter as unknown as new (variables: Variables) => Evaluator;
const NewVariables = Environment as unknown as new () => Variables;

function isLoop(statement: unknown): statement is { readonly iterable: unknown } {
  return isRecord(statement) && statement["type"] === "For";
}

class BoundedInterpreter extends Base {
  #steps = 0;
  /** The expressions that loops iterate over. */
  readonly #walked = new Set<unknown>();

  override evaluate(statement: unknown, environment: unknown): Value {
    if (isLoop(statement)) this.#walked.add(statement.iterable);
    const result = super.evaluate(statement, environment);
    // each iteration of a loop costs ten steps, even with an empty body
    const turns = this.#walked.has(statement) && Array.isArray(result.value) ? result.value.length : 0;
    this.#steps += 1 + 10 * turns;
    if (this.#steps > MAX_STEPS) throw new Error(`a template that has not ended after ${MAX_STEPS} steps`);
    if (typeof result.value === "string" && result.value.length > MAX_LENGTH)
      throw new Error(`a template that makes texts of more than ${MAX_LENGTH} characters`);
    return result;
  }
}

/** Renders a template. Throws an Error that describes the fault of the template. */
export function renderTemplate(source: string, variables: Readonly<Record<string, unknown>>): string {
  if (source.length > MAX_SOURCE)
    throw new Error(`a template of ${source.length} characters, where at most ${MAX_SOURCE} are read`);
  try {
    const { parsed } = new Template(source);
    const environment = new NewVariables();
    for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, value);
    return String(new BoundedInterpreter(environment).run(parsed).value);
  } catch (cause) {
    // errors of JavaScript itself: a call stack or a string that is too large, or a value of an unexpected type
    if (cause instanceof RangeError)
      throw new Error("a template that is nested too deeply, or makes too long a text", { cause });
    if (cause instanceof TypeError)
      throw new Error("a template that uses a value as another kind of value than it is", { cause });
    throw cause;
  }
}

/** The globals that Template.render defines, with a bounded `range`. */
const GLOBALS: Readonly<Record<string, unknown>> = {
  false: false,
  true: true,
  none: null,
  False: false,
  True: true,
  None: null,
  raise_exception: (message: unknown): never => {
    throw new Error(String(message));
  },
  range,
  strftime_now: (format: unknown): string => strftime(String(format), new Date()),
};

function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!(count <= MAX_RANGE)) throw new Error(`a range() of more than ${MAX_RANGE} numbers`);
  return Array.from({ length: count }, (_, i) => from + i * step);
}

const two = (n: number): string => String(n).padStart(2, "0");
const name = (date: Date, options: Intl.DateTimeFormatOptions): string =>
  date.toLocaleDateString("en-US", options);

const FORMATS: Readonly<Record<string, (date: Date) => string>> = {
  Y: (date) => String(date.getFullYear()),
  m: (date) => two(date.getMonth() + 1),
  d: (date) => two(date.getDate()),
  b: (date) => name(date, { month: "short" }),
  B: (date) => name(date, { month: "long" }),
  a: (date) => name(date, { weekday: "short" }),
  A: (date) => name(date, { weekday: "long" }),
  H: (date) => two(date.getHours()),
  M: (date) => two(date.getMinutes()),
  S: (date) => two(date.getSeconds()),
  "%": () => "%",
};

/** The formats of Python's strftime that templates use. */
function strftime(format: string, date: Date): string {
  return format.replace(/%(.)/g, (whole, letter: string) => FORMATS[letter]?.(date) ?? whole);
}
