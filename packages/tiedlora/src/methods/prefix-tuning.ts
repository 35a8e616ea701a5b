/**
 * Prefix tuning (Li & Liang 2021, arXiv 2101.00190): trained keys and values in front of those of each attention, which every query sees. As in PEFT,
 * they have no rotation, and the positions of the tokens begin after them. With `projection`, they are computed by a small network that all layers
 * share but for its last map, as the paper proposes for training; files of PEFT hold the results.
 */
import { checkWhole } from "@tiedlora/core/arguments";
import type { Tensor } from "@tiedlora/core";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type Dims, type PlainMethod } from "../method.ts";
import type { Site, Target } from "../adapter/sites.ts";
import type { Named } from "./recipe.ts";

export interface PrefixTuningOptions extends CommonOptions {
  /** The number of keys and values. Default: 8. */
  readonly length?: number;
  /** The width of the network that computes them. Default: there is none, and they are trained themselves. */
  readonly projection?: number;
}

/** Linears that make keys and values, or these and queries. */
const SEPARATE = /(^|[._])[kv]_proj$/;
const FUSED = /(^|\.)(c_attn|qkv_proj|query_key_value|W_pack)$/;
const KEYS_AND_VALUES = /.*\b([kv]_proj|c_attn|qkv_proj|query_key_value|W_pack)/;

/** The names of linears whose outputs are keys or values, for PEFT's files, which name none. */
export const KEY_VALUE_NAMES: readonly string[] = ["k_proj", "v_proj", "c_attn", "qkv_proj", "query_key_value", "W_pack"]; // prettier-ignore

type Factors = "prefix" | "both" | "E" | "W1" | "b1" | "W2" | "b2" | "W2both" | "b2both";

export function prefixTuning(options: PrefixTuningOptions, named: Named): PlainMethod<Factors> {
  const { length = 8, projection, target, ...common } = options;
  checkWhole("prefix-tuning: length", length, 1);
  if (projection !== undefined) checkWhole("prefix-tuning: projection", projection, 1);
  const hidden = projection ?? 1;
  /** On linears that make keys or values alone, or queries too; trained themselves, or computed. */
  const on = (fused: boolean, computed: boolean) => ({
    on: (site: Site): boolean => {
      checkSite(site);
      return FUSED.test(site.path) === fused && computed === (projection !== undefined);
    },
  });
  const network = { tie: "model", on: () => projection !== undefined } as const;
  return defineMethod({
    ...common,
    ...named,
    target: keysAndValues(target),
    factors: {
      prefix: { shape: [length, "out"], init: init.normal(0.02), ...on(false, false) },
      both: { shape: [length, beside], init: init.normal(0.02), ...on(true, false) },
      E: { shape: [length, hidden], init: init.normal(1), ...network },
      W1: { shape: [hidden, hidden], init: init.normal(), ...network },
      b1: { shape: [hidden], init: init.zeros(), ...network },
      W2: { shape: ["out", hidden], init: init.normal(), ...on(false, true) },
      b2: { shape: ["out"], init: init.zeros(), ...on(false, true) },
      W2both: { shape: [beside, hidden], init: init.normal(), ...on(true, true) },
      b2both: { shape: [beside], init: init.zeros(), ...on(true, true) },
    },
    product: [],
    forward: (_factors, { y }) => y,
    prefix: (factors) => {
      const f = factors as Readonly<Partial<Record<Factors, Tensor>>>;
      const trained = f.prefix ?? f.both;
      if (trained !== undefined) return trained;
      const inner = f.E!.matmul(f.W1!.transpose()).add(f.b1!).tanh();
      return inner.matmul((f.W2 ?? f.W2both)!.transpose()).add((f.b2 ?? f.b2both)!);
    },
  });
}

/** The width of keys and values of a linear that makes queries too, which are as wide as its input. */
const beside = ({ in: from, out }: Dims): number => out - from;

function keysAndValues(target: Target = "qkv"): Target {
  const replaced = (modules: unknown): boolean => modules === "qkv" || modules === "all-linear";
  if (replaced(target)) return KEYS_AND_VALUES;
  const isSpec = typeof target === "object" && "modules" in target;
  return isSpec && replaced(target.modules) ? { ...target, modules: KEYS_AND_VALUES } : target;
}

/** Throws for a module that makes neither keys nor values: what was trained there would have no effect. */
function checkSite({ path, members }: Site): void {
  const alone = members.length === 1 && (SEPARATE.test(path) || FUSED.test(path));
  if (alone) return;
  throw new Error(
    `prefix-tuning: ${path} does not make keys or values alone; leave out the target, or name those linears: ["k_proj", "v_proj"]`,
  );
}
