/** Puts an adapter on a model whose A and B have one of the starts of `formulas.ts`. */
import { key } from "@tiedlora/core";
import { checkName, checkOptions } from "@tiedlora/core/arguments";
import { type AdaptOptions, type Adapter, createAdapter } from "../adapter/adapter.ts";
import { siteWeight } from "../adapter/adapter.ts";
import type { Site } from "../adapter/sites.ts";
import type { Factor, Method } from "../method.ts";
import type { LanguageModel, LossInputs } from "../model.ts";
import { START_NAMES, type StartContext, type StartName, STARTS } from "./formulas.ts";
import { type ByTarget, inputMoments, weightGradients } from "./observe.ts";

/** How an adapter with a start is made. */
export interface StartOptions extends AdaptOptions {
  /** The start. */
  readonly start: StartName;
  /** The batches that "eva", "corda" and "lora-ga" observe. */
  readonly batches?: readonly LossInputs[];
  /** For "loftq": the weight [out, in] of a target before it was quantized, by the target's path. */
  readonly original?: (path: string, site: Site) => Promise<Float32Array>;
}

/**
 * Puts a new adapter on the model, with start values for A and B that come from the frozen weights ("pissa", "olora"), from data
 * ("eva", "corda", "lora-ga"), from what quantization lost ("loftq"), or from random rotations ("orthogonal"). The model's outputs
 * are those without it, but for "loftq", which moves them toward those of the original weights. Starts whose B A is not zero need
 * `methods.loraResidual`, which subtracts it; the others take any method with an A [rank, in] and a B [out, rank] for each target.
 * Throws, and leaves the model unchanged, if the method does not fit, or if what the start needs is missing.
 */
export async function adaptWithStart(
  model: LanguageModel,
  method: Method,
  options: StartOptions,
): Promise<Adapter> {
  const names = ["start", "batches", "original", "seed", "name", "active", "replace"];
  const { start, batches, original, ...rest } = checkOptions(
    "adaptWithStart",
    options,
    '{ start: "pissa" }',
    names,
  );
  checkName("adaptWithStart: start", start, START_NAMES);
  checkStartMethod(method, start);
  const { needs, formula, subtracted } = STARTS[start];
  if ((needs === "moments" || needs === "gradient") && (batches ?? []).length === 0)
    throw new Error(`adaptWithStart: ${start} starts from data, and no batches are given; give { batches }`);
  if (needs === "original" && original === undefined)
    throw new Error(`adaptWithStart: ${start} needs the weights before quantization; give { original }`);
  const moments = needs === "moments" ? await inputMoments(model, method, batches!) : null;
  const gradients = needs === "gradient" ? await weightGradients(model, method, batches!) : null;
  const adapter = createAdapter(model, method, rest);
  for (const { site, dims, scale } of adapter.plan.sites) {
    const context: StartContext = {
      weight: finite(await siteWeight(adapter, site), site.path),
      rows: dims.out,
      columns: dims.in,
      rank: dims.rank,
      scale,
      key: key(adapter.seed).fold(site.path),
      ...(moments && { moments: observedAt(moments, site.path, start) }),
      ...(gradients && { gradient: observedAt(gradients, site.path, start) }),
      ...(original && { original: finite(await original(site.path, site), site.path, dims.out * dims.in) }),
    };
    const { A, B } = formula(context);
    const values = subtracted ? { A, B, A0: A, B0: B } : { A, B };
    for (const [name, value] of Object.entries(values)) adapter.parameter(`${site.path}.${name}`).set(value);
  }
  return adapter.attach(rest);
}

/** Throws unless the factors of a method can have a start. */
export function checkStartMethod(method: Method, start: StartName): void {
  const { subtracted } = STARTS[start];
  const has = (name: string, shape: string): boolean => {
    const factor = (method.factors as Readonly<Record<string, Factor>>)[name];
    return factor !== undefined && factor.tie === "none" && factor.shape.join() === shape;
  };
  if (!has("A", "rank,in") || !has("B", "out,rank"))
    throw new Error(
      `the start ${start} is of an A [rank, in] and a B [out, rank] of each target, which ${method.name} has not; choose lora` +
        (subtracted ? "-residual" : ""),
    );
  const residual = has("A0", "rank,in") && has("B0", "out,rank");
  if (subtracted && !residual)
    throw new Error(
      `the start ${start} is not zero: ${method.name} would change the model before the first step; choose lora-residual, which subtracts the start`,
    );
  if (!subtracted && residual)
    throw new Error(
      `the start ${start} needs no ${method.name}, since its B A is zero or meant; choose lora`,
    );
}

function observedAt(found: ByTarget, path: string, start: StartName): Float64Array {
  const values = found.get(path);
  if (values === undefined)
    throw new Error(`the start ${start} observed nothing at ${path}; leave it out of the target: embeddings and modules that the batches do not reach have no such start`); // prettier-ignore
  if (!values.every(Number.isFinite))
    throw new Error(
      `the start ${start} observed numbers at ${path} that are not finite; check the model and the data`,
    );
  return values;
}

function finite(weight: Float32Array, path: string, size: number = weight.length): Float32Array {
  if (weight.length !== size)
    throw new RangeError(`the original weight of ${path} has ${weight.length} numbers; expected ${size}`);
  const at = weight.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return weight;
  throw new Error(`the weight of ${path} has ${weight[at]} at ${at}; a start needs finite weights`);
}
