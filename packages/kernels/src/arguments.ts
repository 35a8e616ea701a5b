/**
 * Checks of arguments at run time: callers in plain JavaScript, files and type assertions can pass any value. Each check returns
 * its argument if it is valid; otherwise it throws an error that names the value, what is expected, and what to do.
 * @module
 */
import { BYTES, type DType } from "@tiedlora/safetensors";

const clip = (text: string): string => (text.length > 80 ? `${text.slice(0, 77)}...` : text);
const some = (list: readonly unknown[], show: (x: unknown) => string): string =>
  list.slice(0, 8).map(show).join(", ") + (list.length > 8 ? ", …" : "");

/** A short description of any value for error messages: `"text"`, `[1, 2]`, `a Uint8Array of 3`, `an object { a, b }`. */
export function describeArgument(value: unknown, depth = 0): string {
  if (typeof value === "string") return JSON.stringify(clip(value));
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value))
    return clip(depth > 1 ? "[…]" : `[${some(value, (x) => describeArgument(x, depth + 1))}]`);
  const name = (value.constructor as { readonly name: string } | undefined)?.name;
  if (ArrayBuffer.isView(value))
    return `a ${name} of ${String(Reflect.get(value, "length") ?? value.byteLength)}`;
  if (value instanceof Promise) return "a promise (await it)";
  const toText: unknown = Reflect.get(value, "toString");
  if (typeof toText === "function" && toText !== Reflect.get(Object.prototype, "toString"))
    return clip(String(toText.call(value)));
  if (name !== undefined && name !== "Object") return `an object of class ${name}`;
  const keys = some(Object.keys(value), String);
  return keys === "" ? "an object {}" : `an object { ${keys} }`;
}

/** Throws an error saying that `value` is no `kind` and what to give instead: RangeError for a number, otherwise TypeError. */
export function refuse(what: string, value: unknown, kind: string, advice: string): never {
  const message = `${what}: ${describeArgument(value)} is no ${kind}; give ${advice}`;
  throw typeof value === "number" ? new RangeError(message) : new TypeError(message);
}

/** Returns `value` if it is a whole number from `least` to `most`, both included; throws otherwise. */
export function checkWhole(
  what: string,
  value: number,
  least = 0,
  most: number = Number.MAX_SAFE_INTEGER,
): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `in ${least} … ${most}`;
  return refuse(what, value, `whole number ${range}`, "one");
}

/** Returns `value` if it is a number and `fits` is true; throws otherwise. `kind` describes the accepted numbers in the message. */
export function checkNumber(what: string, value: number, kind = "number", fits = true): number {
  return typeof value === "number" && fits ? value : refuse(what, value, kind, "one");
}

/** Returns `value` if it is a finite number; throws otherwise. */
export function checkFinite(what: string, value: number): number {
  return checkNumber(what, value, "finite number", Number.isFinite(value));
}

/** Returns `values` if it is an array of numbers or a typed array of numbers (not bigints); throws otherwise. */
export function checkNumbers<V extends ArrayLike<number>>(what: string, values: V): V {
  const list: ArrayLike<unknown> = values;
  const isView = ArrayBuffer.isView(list) && "length" in list && typeof (list[0] ?? 0) === "number";
  if (!isView && !Array.isArray(list))
    refuse(what, list, "list of numbers", "an array of numbers, or a Float32Array, Int32Array or the like");
  const odd = Array.isArray(list) ? list.findIndex((x) => typeof x !== "number") : -1;
  return odd < 0 ? values : refuse(`${what}: value ${odd}`, list[odd], "number", "one");
}

/** The numbers in nested arrays, row-major, and their shape. Throws unless all arrays at the same depth have the same length. */
export function nestedNumbers(what: string, values: unknown): { shape: number[]; numbers: number[] } {
  const shape: number[] = [];
  // The depth limit stops at an array that contains itself.
  for (let first = values; Array.isArray(first) && shape.length < 32; first = first[0])
    shape.push(first.length);
  const numbers: number[] = [];
  const visit = (value: unknown, depth: number): void => {
    const length = shape[depth];
    if (typeof value === "number" && length === undefined) numbers.push(value);
    else if (Array.isArray(value) && value.length === length)
      for (const item of value) visit(item, depth + 1);
    else if (Array.isArray(value) || typeof value === "number")
      throw new TypeError(
        `${what}: nested arrays must be of equal lengths and hold numbers; the first of each give [${shape.join(", ")}], ` +
          `where ${describeArgument(value)} at depth ${depth} has no place`,
      );
    else refuse(what, value, "number", "numbers, nested arrays of them, or a typed array");
  };
  visit(values, 0);
  return { shape, numbers };
}

/** Returns `dtype` if it is an element type; throws otherwise. */
export function checkDType(what: string, dtype: DType): DType {
  if (Object.hasOwn(BYTES, dtype)) return dtype;
  return refuse(what, dtype, "element type", `one of ${Object.keys(BYTES).join(", ")}`);
}

/** Returns `value` if it is a function; throws otherwise. */
export function checkFunction<F>(what: string, value: F, advice: string): F {
  return typeof value === "function" ? value : refuse(what, value, "function", advice);
}

/** Returns `options` if it is an object whose keys are all in `names` (any keys if `names` is not given); throws otherwise. */
export function checkOptions<T>(what: string, options: T, example: string, names?: readonly string[]): T {
  if (typeof options !== "object" || options === null || Array.isArray(options))
    return refuse(what, options, "object of options", `e.g. ${example}`);
  const odd = names && Object.keys(options).find((name) => !names.includes(name));
  if (odd === undefined) return options;
  throw new TypeError(`${what}: there is no option "${odd}"; give ${names!.join(", ")}`);
}

/** Returns `key` if it is a random key; throws otherwise. */
export function checkKey<K extends { readonly k0: number; readonly k1: number }>(what: string, key: K): K {
  if (typeof (key as K | null | undefined)?.k0 === "number") return key;
  return refuse(what, key, "random key", 'one, e.g. key(1), or key(1).fold("name")');
}

/** Returns `value` if it is one of `names`; throws otherwise. */
export function checkName<N extends string>(what: string, value: N, names: readonly N[]): N {
  if (names.includes(value)) return value;
  return refuse(what, value, "known name", `one of ${names.map((name) => `"${name}"`).join(", ")}`);
}
