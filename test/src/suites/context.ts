/** What the suites share: devices made when first needed, limits, how many cases to try. */
import type { Device, DType } from "@tiedlora/core";
import type { Precision } from "../bounds/precision.ts";
import type { Coverage } from "../compare.ts";
import type { Limits } from "../generate/builder.ts";
import { type PropertyOptions } from "../property.ts";

/** Whether kernels are fused. */
export type Fusion = "on" | "off";

/** Makes a device on the backend under test. Called a few times; each device is closed in the end. */
export type MakeDevice = (options: { readonly fusion: Fusion }) => Promise<Device> | Device;

/** Something that does not work yet, and why: the suite expects it to fail, and fails when it starts to pass. */
export interface Gap {
  /** The name of the case, exactly. */
  readonly name: string;
  readonly reason: string;
}

/** Which cases there are, and how hard they try. */
export interface ConformanceOptions {
  /** "core" is small enough for a page. Default "all". */
  readonly subset?: "core" | "all";
  /** How many random cases to try, relative to the default of 1. */
  readonly effort?: number;
  /** How many random programs of loop kernels, and how many random graphs; by default `effort` decides. */
  readonly randomCases?: number;
  /** Of the random cases; default: a new one each time, printed with a failure. */
  readonly seed?: number;
  /** How exact single operations are, where the default (WGSL's requirements) asks too much or too little. */
  readonly precision?: Precision;
  readonly gaps?: readonly Gap[];
}

/** One named case. */
export interface ConformanceCase {
  readonly name: string;
  /** Rejects with what is wrong. */
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

  /** A device of a case's own, which closes it. */
  async fresh(): Promise<Device> {
    return this.#make({ fusion: "on" });
  }

  /** What generated programs may use. f64 is for the reference alone, and left to the derivative checks. */
  async limits(elements: number): Promise<Limits> {
    const { caps } = (await this.device()).backend;
    const dtypes = new Set<DType>([...caps.dtypes].filter((d) => d !== "f64"));
    return { dtypes, maxOperands: Math.min(caps.maxOperands, 16), elements };
  }

  /** `count` cases at effort 1; `randomCases` of them, if that is given and the suite is one of kernels or graphs. */
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

/** So few elements say little about the share that has a bound: a single case of unlucky values is a third of them. */
const FEW = 500;

/** Throws when most of what was compared had no bound: then the test would have tested nothing. */
export function requireCoverage({ bounded, elements }: Coverage, share = 0.7): void {
  const needed = elements < FEW ? share / 2 : share;
  if (bounded >= needed * elements) return;
  throw new Error(`only ${bounded} of ${elements} compared elements had an error bound`);
}
