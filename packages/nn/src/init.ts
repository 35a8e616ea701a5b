/** Initial values: drawn on the host in float64, so that every backend starts from the same bits. */
import {
  type Device,
  type Key,
  normalArray,
  Parameter,
  product,
  type Shape,
  uniformArray,
} from "@tiedlora/core";
import {
  checkFinite,
  checkKey,
  checkNumber,
  checkOptions,
  checkShape,
  refuse,
  show,
} from "@tiedlora/core/extend";

/** What a module needs to create its parameters. */
export interface InitOptions {
  /** The device that holds the parameters. */
  readonly device: Device;
  /** The random key of the initial values; give each module its own key (`key.fold("name")`). */
  readonly key: Key;
}

/** Returns `options` if it is an object with a random key; throws otherwise. The device is checked where it is used. */
export function checkInit(what: string, options: InitOptions): InitOptions {
  checkKey(`${what}: options.key`, checkOptions(what, options, "{ device, key: key(1) }").key);
  return options;
}

/** Returns `parameter` if it is a Parameter of shape `lengths`, where null stands for any length; throws otherwise. */
export function checkParameter(
  what: string,
  parameter: Parameter,
  lengths: readonly (number | null)[],
): Parameter {
  if (!(parameter instanceof Parameter)) refuse(what, parameter, "parameter", "one made by Parameter.from");
  const { shape } = parameter;
  if (shape.length === lengths.length && shape.every((d, i) => d === (lengths[i] ?? d))) return parameter;
  const expected = lengths.map((d) => d ?? "any").join(", ");
  throw new RangeError(`${what} is of shape ${show(shape)}; give one of shape [${expected}]`);
}

/** A new f32 parameter with values drawn from U(-bound, bound). */
export function uniformParameter(
  shape: Shape,
  bound: number,
  options: InitOptions,
  name?: string,
): Parameter {
  const { device, key } = checkInit("uniformParameter", options);
  checkShape("uniformParameter", shape);
  checkFinite("uniformParameter: bound", bound);
  return Parameter.from(device, uniformArray(key, product(shape), -bound, bound), shape, "f32", name);
}

/** A new f32 parameter with values drawn from N(0, std²). */
export function normalParameter(shape: Shape, std: number, options: InitOptions, name?: string): Parameter {
  const { device, key } = checkInit("normalParameter", options);
  checkShape("normalParameter", shape);
  checkFinite("normalParameter: std", std);
  return Parameter.from(device, normalArray(key, product(shape), 0, std), shape, "f32", name);
}

/** A new f32 parameter with `value` in every element. */
export function constantParameter(shape: Shape, value: number, device: Device, name?: string): Parameter {
  checkShape("constantParameter", shape);
  checkNumber("constantParameter: value", value);
  return Parameter.from(device, new Float32Array(product(shape)).fill(value), shape, "f32", name);
}
