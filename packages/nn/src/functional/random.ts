/** Random numbers of other distributions, drawn on the device from the uniform words of `random.bits`. */
import { type Key, random, type Shape, type Tensor } from "@tiedlora/core";
import { checkFinite, checkKey, checkOptions } from "@tiedlora/core/extend";

/** The mean and the standard deviation of normal numbers. */
export interface NormalOptions {
  /** Default: 0. */
  readonly mean?: number;
  /** Default: 1. */
  readonly std?: number;
}

/** Uniform f32 numbers strictly between 0 and 1: odd multiples of 2^-24. */
function inside(key: Key, shape: Shape): Tensor {
  const scale = 2 ** -23;
  return random
    .uniform(key, shape)
    .mul(2 ** 23)
    .floor()
    .add(0.5)
    .mul(scale);
}

/**
 * Normal f32 numbers, by the method of Box and Muller (1958): √(-2 log u) cos(2π w). The words behind u and w are equal on every
 * backend; the numbers are equal up to the rounding of log and cos, and within ±5.77 standard deviations of the mean. On no device:
 * they adopt that of the tensors they meet. The host's `normalArray` draws other numbers from the same key.
 */
export function randomNormal(key: Key, shape: Shape, options: NormalOptions = {}): Tensor {
  checkKey("randomNormal", key);
  const { mean = 0, std = 1 } = checkOptions("randomNormal", options, "{ std: 0.02 }", ["mean", "std"]);
  checkFinite("randomNormal: mean", mean);
  checkFinite("randomNormal: std", std);
  const radius = inside(key.fold("radius"), shape).log().mul(-2).sqrt();
  const angle = random
    .uniform(key.fold("angle"), shape)
    .sub(0.5)
    .mul(2 * Math.PI);
  return radius.mul(angle.cos()).mul(std).add(mean);
}

/**
 * Standard Gumbel f32 numbers, -log(-log u), from -2.8 to 16.6: argmax(logits + gumbel) is a sample of softmax(logits). On no
 * device, as `randomNormal`.
 */
export function randomGumbel(key: Key, shape: Shape): Tensor {
  checkKey("randomGumbel", key);
  return inside(key, shape).log().neg().log().neg();
}
