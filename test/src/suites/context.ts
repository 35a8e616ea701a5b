/** The context that the suites share: devices that are made when first needed, limits, and how many cases to try. */
import type { Device, DType } from "@tiedlora/core";
import type { Precision } from "../bounds/precision.ts";
import type { Coverage } from "../compare.ts";
import type { Limits } from "../generate/builder.ts";
import { type PropertyOptions } from "../property.ts";

/** Whether kernels are fused. */
export type Fusion = "on" | "off";

/** Makes a device on the backend under test. It is called a few times; each device is closed at the end. */
export type MakeDevice = (options: { readonly fusion: Fusion }) => Promise<Device> | Device;

/** A case that does not pass yet, and why: the suite expects it to fail, and reports a failure when it passes. */
export interface Gap {
  /** The exact name of the case. */
  readonly name: string;
  readonly reason: string;
}

/** Which cases run, and how many random inputs they try. */
export interface ConformanceOptions {
  /** "core" is small enough for a page. Default "all". */
  readonly subset?: "core" | "all";
  /** How many random cases to try, relative to the default of 1. */
  readonly effort?: number;
  /** The number of random programs of loop kernels, and of random graphs; by default `effort` decides. */
  readonly randomCases?: number;
  /** The seed of the random cases. Default: a new one for each run, printed with a failure. */
  readonly seed?: number;
  /** The required precision of single operations, where the default (based on WGSL's requirements) is too strict or too loose. */
  readonly precision?: Precision;
  readonly gaps?: readonly Gap[];
}

/** One named case. */
export interface ConformanceCase {
  readonly name: string;
  /** Rejects with a description of the fault. */
  readonly run: () => Promise<void>;
}

export class Context {
  readonly options: ConformanceOptions;
  readonly #make: MakeDevice;
  readonly #devices = new Map<Fusion, Promise<Device>>();

  constructor(make: MakeDevice, options: ConformanceOptions) {
    this.#make = make;
    this.options = options;
  }

  /** The shared device with or without fusion. */
  device(fusion: Fusion = "on"): Promise<Device> {
    const known = this.#devices.get(fusion) ?? Promise.resolve(this.#make({ fusion }));
    this.#devices.set(fusion, known);
    return known;
  }

  /** A new device for one case, which must close it. */
  async fresh(): Promise<Device> {
    return this.#make({ fusion: "on" });
  }

  /** What generated programs may use. f64 is left out: only the reference has it, and the derivative checks cover it. */
  async limits(elements: number): Promise<Limits> {
    const { caps } = (await this.device()).backend;
    const dtypes = new Set<DType>([...caps.dtypes].filter((d) => d !== "f64"));
    return { dtypes, maxOperands: Math.min(caps.maxOperands, 16), elements };
  }

  /** `count` times `effort` cases; `randomCases` instead, if that is given and `of` says that the cases are kernels or graphs. */
  runs(count: number, of?: "kernels or graphs"): PropertyOptions {
    const scaled = Math.max(1, Math.round(count * (this.options.effort ?? 1)));
    const runs = of === undefined ? scaled : (this.options.randomCases ?? scaled);
    return this.options.seed === undefined ? { runs } : { runs, seed: this.options.seed };
  }

  async close(): Promise<void> {
    for (const device of this.#devices.values()) (await device).close();
    this.#devices.clear();
  }
}

/** With fewer elements, the share that has a bound says little: one case with unlucky values may be a third of them. */
const FEW = 500;

/** Throws if too few of the compared elements had a finite bound: then the test would have tested almost nothing. */
export function requireCoverage({ bounded, elements }: Coverage, share = 0.7): void {
  const needed = elements < FEW ? share / 2 : share;
  if (bounded >= needed * elements) return;
  throw new Error(`only ${bounded} of ${elements} compared elements had an error bound`);
}
