/**
 * Wrong arguments: for each kind of argument, values that people pass by mistake. A function must refuse each of them with an
 * error that names the function and shows the value; JavaScript's own errors ("x is not a function") do neither.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { describeArgument } from "@tiedlora/core/extend";

const NOTHING = [undefined, null] as const;
const FRACTIONS = [-1, 0.5, Number.NaN, Infinity, "3", 2n] as const;

/** Values that are not arguments of a kind. */
const WRONG = {
  tensor: [...NOTHING, 3, "text", [1, 2], {}, new Float32Array(2)],
  tensors: [...NOTHING, 3, "text", {}, [1], [undefined]],
  operand: [...NOTHING, "1", true, [1, 2], {}, 1n, new Float32Array(2)],
  number: [...NOTHING, "1", true, [1], {}, 1n],
  finite: [...NOTHING, "1", Number.NaN, Infinity],
  positive: [...NOTHING, "1", Number.NaN, Infinity, -1],
  count: [...NOTHING, ...FRACTIONS, [2]],
  whole: [...NOTHING, 0.5, Number.NaN, Infinity, "3", 2n],
  axis: [...NOTHING, 9, -9, 0.5, Number.NaN, "0"],
  axes: [null, 9, 0.5, "0", {}, [9], [0.5], ["0"]],
  shape: [...NOTHING, 3, "23", {}, [-1], [0.5], [Number.NaN], ["2"], [undefined]],
  resize: [...NOTHING, 3, "23", {}, [-2], [0.5], [Number.NaN], ["6"], [undefined]],
  dtype: [...NOTHING, "float32", "F32", 3, Float32Array],
  key: [...NOTHING, 1, "seed", {}],
  options: [null, 1, "text", true, [1]],
  function: [...NOTHING, 1, "text", {}],
  device: [...NOTHING, "cpu", {}],
  values: [
    ...NOTHING,
    3,
    "123",
    {},
    ["1"],
    [undefined],
    new BigInt64Array(2),
    new DataView(new ArrayBuffer(8)),
  ],
  name: [...NOTHING, "nonsense", 3],
  text: [...NOTHING, 3, {}, ["a"]],
  record: [...NOTHING, 3, "text", [1]],
} satisfies Record<string, readonly unknown[]>;

/** A kind of argument; with "?", the argument is optional. */
export type Kind = keyof typeof WRONG | `${keyof typeof WRONG}?`;

/**
 * The name of the function, with which its errors must begin; the kind of the argument, or wrong values, each with a pattern
 * that the error must match; and the call. TypeScript would refuse these calls, so the argument has type `never`.
 */
export type Row = readonly [
  what: string,
  kind: Kind | readonly (readonly [wrong: unknown, says: RegExp])[],
  call: (wrong: never) => unknown,
];

/** Matches the messages of JavaScript's own errors. */
const RAW =
  /is not a function|is not iterable|not a constructor|Cannot (read|set|destructure|mix|convert)|Invalid (array|typed array)|Reduce of empty|Class constructor|is not defined$|(undefined|null) is not an/;

/** Describes how the error of a call is not as it should be, or returns null. */
async function fault(
  what: string,
  says: readonly string[] | RegExp,
  call: () => unknown,
): Promise<string | null> {
  try {
    const result = await call();
    return `was taken, and gave ${describeArgument(result)}`;
  } catch (error) {
    if (!(error instanceof Error)) return `threw ${String(error)}`;
    const { message } = error;
    if (RAW.test(message)) return `JavaScript's own error: ${message}`;
    if (!message.startsWith(what)) return `does not begin with "${what}": ${message}`;
    const found = says instanceof RegExp ? says.test(message) : says.some((text) => message.includes(text));
    return found ? null : `does not say ${String(says)}: ${message}`;
  }
}

/** How an error may show the value; for a list with one element, showing that element is enough. */
const shown = (wrong: unknown): string[] =>
  [wrong, ...(Array.isArray(wrong) && wrong.length === 1 ? wrong : [])].map((value) =>
    describeArgument(value),
  );

/** Tests that each function in `rows` refuses each wrong argument. */
export function testWrongArguments(rows: readonly Row[]): void {
  for (const what of new Set(rows.map(([name]) => name))) {
    test(`${what} refuses what is no argument of its kind`, async () => {
      const faults: string[] = [];
      for (const [, kind, call] of rows.filter(([name]) => name === what)) {
        const optional = typeof kind === "string" && kind.endsWith("?");
        const cases =
          typeof kind !== "string"
            ? kind
            : WRONG[kind.replace("?", "") as keyof typeof WRONG]
                .filter((wrong: unknown) => !(optional && wrong === undefined))
                .map((wrong: unknown) => [wrong, shown(wrong)] as const);
        for (const [wrong, says] of cases) {
          const found = await fault(what, says, () => call(wrong as never));
          if (found !== null) faults.push(`${call.toString()} with ${describeArgument(wrong)}: ${found}`);
        }
      }
      assert.equal(faults.length, 0, `\n${faults.join("\n")}`);
    });
  }
}

/** Tests that `rows`, or `others` with a reason, contain every function that takes arguments. */
export function testAllCovered(
  functions: ReadonlyMap<string, unknown>,
  rows: readonly Row[],
  others: Readonly<Record<string, string>>,
): void {
  test("every function that takes arguments is called with wrong ones", () => {
    const takesNone = (f: unknown): boolean =>
      typeof f !== "function" || /^(async )?(function )?\*?[\w$]*\s*\(\s*\)/.test(f.toString());
    const called = new Set(rows.map(([what]) => what));
    const missing = [...functions].filter(
      ([name, f]) => !takesNone(f) && !called.has(name) && !Object.hasOwn(others, name),
    );
    assert.deepEqual(missing.map(([name]) => name), []); // prettier-ignore
    const unknown = Object.keys(others).filter((name) => !functions.has(name) || called.has(name));
    assert.deepEqual(unknown, [], "excused, but there is no such function, or it is called");
  });
}

/** The methods of a class, by their names with `prefix` in front. */
export function methodsOf(prefix: string, type: { readonly prototype: object }): Map<string, unknown> {
  const names = Object.getOwnPropertyNames(type.prototype).filter((name) => name !== "constructor");
  return new Map(
    names.map((name) => [
      `${prefix}${name}`,
      Object.getOwnPropertyDescriptor(type.prototype, name)!.value as unknown,
    ]),
  );
}
