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

/** What a module needs to make its parameters. */
export interface InitOptions {
  readonly device: Device;
  /** Where initial values come from; two modules need two keys (`key.fold("name")`). */
  readonly key: Key;
}

/** U(-bound, bound). */
export function uniformParameter(
  shape: Shape,
  bound: number,
  { device, key }: InitOptions,
  name?: string,
): Parameter {
  return Parameter.from(device, uniformArray(key, product(shape), -bound, bound), shape, "f32", name);
}

/** N(0, std²). */
export function normalParameter(
  shape: Shape,
  std: number,
  { device, key }: InitOptions,
  name?: string,
): Parameter {
  return Parameter.from(device, normalArray(key, product(shape), 0, std), shape, "f32", name);
}

/** The same value everywhere. */
export function constantParameter(shape: Shape, value: number, device: Device, name?: string): Parameter {
  return Parameter.from(device, new Float32Array(product(shape)).fill(value), shape, "f32", name);
}
