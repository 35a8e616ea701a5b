/** What optimizers check: the numbers that they are given, and what a rule gives back. */
import { computeType, type Parameter, sameShape, Tensor } from "@tiedlora/core";
import { deviceOf, show } from "@tiedlora/core/extend";
import type { State } from "./state.ts";

/** What a rule makes of one parameter in one step. */
export interface Rule {
  /** The new value of the parameter. */
  readonly value: Tensor;
  /** The new state, all tensors that `stateShapes` names. */
  readonly state: State;
}

/** `value`, if it is a finite number (or `also`) that `fits`; otherwise an error with an `example` of what to give. */
export function checkNumber(
  what: string,
  value: number,
  example: string,
  fits: boolean,
  also?: number,
): number {
  if (typeof value === "number" && fits && (Number.isFinite(value) || value === also)) return value;
  const given = typeof value === "string" ? `"${String(value)}"` : String(value);
  throw new RangeError(`${what} is ${given}; give a finite number, not negative, e.g. ${example}`);
}

/** Whether a rule of the optimizer `owner` gave what `p` and its state `old` can become; throws what is wrong with it. */
export function checkRule(owner: string, p: Parameter, rule: Rule, old: State): void {
  const of = `${owner}: the rule for ${p.name} ${show(p.shape)}`;
  const given = rule as Partial<Rule> | null | undefined;
  if (!(given?.value instanceof Tensor) || typeof given.state !== "object")
    throw new TypeError(`${of} gave no { value: Tensor, state: { … } }; return both, and not a promise`);
  const type = computeType(p.dtype);
  const check = (what: string, tensor: unknown, like: Tensor): void => {
    const expected = `${show(like.shape)} ${type}`;
    if (!(tensor instanceof Tensor))
      throw new TypeError(`${of} gave no ${what}; expected a tensor ${expected}`);
    if (!sameShape(tensor.shape, like.shape) || (tensor.dtype !== type && tensor.dtype !== like.dtype))
      throw new TypeError(
        `${of} gave ${what} of shape ${show(tensor.shape)} ${tensor.dtype}; expected ${expected}`,
      );
    deviceOf([p, tensor]);
  };
  check("a value", given.value, p);
  for (const name of Object.keys(old)) check(`state "${name}"`, given.state[name], old[name]!);
  const unknown = Object.keys(given.state).filter((name) => !(name in old));
  if (unknown.length > 0)
    throw new TypeError(
      `${of} gave state "${unknown.join('", "')}", which stateShapes does not name; it names [${Object.keys(old).join(", ")}]`,
    );
}
