/** Checks that optimizers share: of their settings, and of the results of a rule. */
import { computeType, type Parameter, sameShape, Tensor } from "@tiedlora/core";
import { deviceOf, refuse, show } from "@tiedlora/core/extend";
import type { State } from "./state.ts";

/** The result of a rule for one parameter in one step. */
export interface Rule {
  /** The new value of the parameter. */
  readonly value: Tensor;
  /** The new state: every tensor that `stateShapes` names. */
  readonly state: State;
}

/** Returns `value` if `fits` is true and it is a finite number or equals `also`; else throws RangeError, giving the `example`. */
export function checkNumber(
  what: string | (() => string),
  value: number,
  example: string,
  fits: boolean,
  also?: number,
): number {
  if (typeof value === "number" && fits && (Number.isFinite(value) || value === also)) return value;
  const given = typeof value === "string" ? `"${String(value)}"` : String(value);
  const name = typeof what === "string" ? what : what();
  throw new RangeError(`${name} is ${given}; give a finite number, not negative, e.g. ${example}`);
}

/** Returns `betas` if they are a pair of numbers from 0 and below 1; else throws. */
export function checkBetas(what: string, betas: readonly [number, number]): readonly [number, number] {
  if (!Array.isArray(betas) || betas.length !== 2)
    refuse(`${what}: betas`, betas, "pair", "e.g. [0.9, 0.999]");
  for (const beta of betas as number[])
    checkNumber(`${what}: a beta`, beta, "[0.9, 0.999], both below 1", beta >= 0 && beta < 1);
  return betas;
}

/** Decoupled weight decay: a number, or a function of the parameter. */
export type WeightDecay = number | ((parameter: Parameter) => number);

/** The weight decay of each parameter. Throws, now or when it is asked for, unless it is a number of at least 0. */
export function decayOf(owner: string, decay: WeightDecay): (parameter: Parameter) => number {
  if (typeof decay !== "function") checkNumber(`${owner}: weightDecay`, decay, "0.01", decay >= 0);
  return (parameter) => {
    const value = typeof decay === "function" ? decay(parameter) : decay;
    return checkNumber(() => `${owner}: weightDecay of ${parameter.name}`, value, "0.01", value >= 0);
  };
}

/** Throws unless the result of a rule of optimizer `owner` matches `p` and its old state in names, shapes, types and devices. */
export function checkRule(owner: string, p: Parameter, rule: Rule, old: State): void {
  const of = (): string => `${owner}: the rule for ${p.name} ${show(p.shape)}`; // this is done for each parameter of each step
  const given = rule as Partial<Rule> | null | undefined;
  if (!(given?.value instanceof Tensor) || typeof given.state !== "object")
    throw new TypeError(`${of()} gave no { value: Tensor, state: { … } }; return both, and not a promise`);
  const type = computeType(p.dtype);
  const check = (name: string | null, tensor: unknown, like: Tensor): void => {
    const what = (): string => (name === null ? "a value" : `state "${name}"`);
    const expected = (): string => `${show(like.shape)} ${type}`;
    if (!(tensor instanceof Tensor))
      throw new TypeError(`${of()} gave no ${what()}; expected a tensor ${expected()}`);
    if (!sameShape(tensor.shape, like.shape) || (tensor.dtype !== type && tensor.dtype !== like.dtype))
      throw new TypeError(
        `${of()} gave ${what()} of shape ${show(tensor.shape)} ${tensor.dtype}; expected ${expected()}`,
      );
    if (tensor.device !== p.device) deviceOf([p, tensor]);
  };
  check(null, given.value, p);
  for (const name in old) check(name, given.state[name], old[name]!);
  const unknown: string[] = [];
  for (const name in given.state) if (!(name in old)) unknown.push(name);
  if (unknown.length > 0)
    throw new TypeError(
      `${of()} gave state "${unknown.join('", "')}", which stateShapes does not name; it names [${Object.keys(old).join(", ")}]`,
    );
}
