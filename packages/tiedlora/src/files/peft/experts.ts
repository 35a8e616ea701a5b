/**
 * Adapters of peft on the weights of experts (`target_parameters`). transformers 5 stacks the weights of a layer's experts, and
 * peft stores the factors of all experts as one A and one B; here each expert has linears, and factors, of its own. The
 * stacked `gate_up_proj` is the group of gate and up, which share A.
 */
import { concat, FormatError, stack, type Tensor } from "@tiedlora/core";
import type { Adapter } from "../../adapter/adapter.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";
import type { LinearInfo } from "../../linear-info.ts";
import { endsWithName } from "../../match.ts";
import { PREFIX, type Wanted } from "./keys.ts";

/** A stacked parameter that a file adapts. */
export interface StackedExperts {
  /** The path of the list of experts. */
  readonly module: string;
  readonly count: number;
  /** The linear of each expert that has the factors: the first of the group. */
  readonly linear: "gate_proj" | "down_proj";
  /** The name of each expert's target. */
  readonly target: "gate_up" | "down_proj";
  /** Whether peft wraps it inside of the wrapper of another parameter. */
  readonly inner: boolean;
}

const STACKED = { gate_up_proj: ["gate_proj", "gate_up"], down_proj: ["down_proj", "down_proj"] } as const;

const EXPERT = /^(.*)\.(\d+)\.(?:gate|up|down)_proj$/;

/** Whether a linear belongs to an expert of a stacked parameter: peft then has no module of this path. */
export const isStacked = (path: string, stacked: readonly StackedExperts[]): boolean =>
  stacked.some(({ module }) => EXPERT.exec(path)?.[1] === module);

/** The stacked parameters that `target_parameters` means. Throws FormatError for a name that means none. */
export function stackedExperts(
  linears: readonly LinearInfo[],
  names: readonly string[],
  file: string,
): StackedExperts[] {
  const counts = new Map<string, number>();
  for (const { path } of linears) {
    const [, module, index] = EXPERT.exec(path) ?? [];
    if (module !== undefined) counts.set(module, Math.max(counts.get(module) ?? 0, Number(index) + 1));
  }
  const used = new Set<string>();
  const found = [...counts].flatMap(([module, count]): StackedExperts[] => {
    const meant = Object.entries(STACKED).filter(([parameter]) => {
      const matching = names.filter((name) => endsWithName(`${module}.${parameter}`, name));
      for (const name of matching) used.add(name);
      return matching.length > 0;
    });
    // peft wraps the parameters of a module in their order, each wrapper around the one before.
    return meant.map(([, [linear, target]], i) => ({
      module,
      count,
      linear,
      target,
      inner: i < meant.length - 1,
    }));
  });
  const unused = names.find((name) => !used.has(name));
  if (unused === undefined) return found;
  throw new FormatError({
    file,
    tensor: "target_parameters",
    found: `"${unused}", which matches none`,
    expected: "gate_up_proj or down_proj of this model's experts, such as mlp.experts.down_proj",
    hint: "Is this the base model that the adapter was trained on?",
  });
}

/** The names of the experts' targets, for a method. */
export const expertTargets = (stacked: readonly StackedExperts[]): string[] =>
  stacked.flatMap(({ module, count, target }) =>
    Array.from({ length: count }, (_, e) => `${module}.${e}.${target}`),
  );

/** The tensors of stacked factors: A [experts · r, in], one expert after another; B [out, r · experts], the experts innermost. */
export function stackedTensors(adapter: Adapter, stacked: readonly StackedExperts[]): Wanted[] {
  const layers = new Map<string, AdapterLayer>();
  for (const [, layer] of adapter.layers()) layers.set(layer.member.path, layer);
  return stacked.flatMap(({ module, count, linear, inner }): Wanted[] => {
    const all = Array.from({ length: count }, (_, e) => layers.get(`${module}.${e}.${linear}`)!);
    const at = `${PREFIX}${module}.${inner ? "base_layer." : ""}`;
    const [A, B] = ["A", "B"].map((factor) => all.map((layer) => layer.parameter(factor)!));
    const [rank, width] = A![0]!.shape as [number, number];
    const out = B![0]!.shape[0]!;
    return [
      {
        names: [`${at}lora_A.weight`],
        shape: [count * rank, width],
        set: (values) =>
          A!.forEach((one, e) => one.set(values.slice(e * rank * width, (e + 1) * rank * width))),
      },
      {
        names: [`${at}lora_B.weight`],
        shape: [out, rank * count],
        set: (values) =>
          B!.forEach((one, e) =>
            one.set(Float32Array.from({ length: out * rank }, (_, i) => values[i * count + e]!)),
          ),
      },
    ];
  });
}

/** One module's update in the form of LoRA; `c` and `m` are what variants add. */
interface Factored {
  readonly layer: AdapterLayer;
  readonly A: Tensor;
  readonly B: Tensor;
  readonly c?: Tensor;
  readonly m?: Tensor;
}

/** Whether a linear belongs to an expert. */
export const isExpert = (path: string): boolean => EXPERT.test(path);

/** Stacked factors to be written, and the names of the parameters that they adapt, for `target_parameters`. */
export interface StackedFactors {
  readonly parameters: readonly string[];
  readonly tensors: readonly [name: string, tensor: Tensor][];
}

/**
 * The factors of experts' linears, stacked. Throws unless all experts of a layer are adapted alike, gate and up as one target: only then
 * do the stacks hold the update.
 */
export function stackFactors(experts: readonly Factored[], linears: readonly LinearInfo[]): StackedFactors {
  const byPath = new Map(experts.map((one) => [one.layer.member.path, one]));
  const whole = new Set(
    [...byPath.keys()].map((path) => path.replace(/\.\d+\.(?=[a-z]+_proj$)/, ".").replace(/\.(gate|up)_proj$/, ".gate_up_proj")), // prettier-ignore
  );
  const stacked = stackedExperts(linears, [...whole], "the adapter");
  const short = [...new Set([...whole].map((name) => name.replace(/^.*\.\d+\./, "")))];
  const all = stackedExperts(linears, short, "the adapter").length === stacked.length;
  const found = (path: string): Factored => {
    const one = byPath.get(path);
    if (one === undefined) refuseStack(`${path} is not adapted, and other experts of its layer are`);
    if (one.c !== undefined || one.m !== undefined) refuseStack(`${path} has more than A and B`);
    return one;
  };
  const expert = (path: string, linear: StackedExperts["linear"]): Pick<Factored, "A" | "B"> => {
    const one = found(`${path}.${linear}`);
    if (linear === "down_proj") return one;
    const up = found(`${path}.up_proj`);
    if (up.layer.plan !== one.layer.plan) refuseStack(`gate_proj and up_proj of ${path} each have an A of their own`); // prettier-ignore
    return { A: one.A, B: concat([one.B, up.B]) };
  };
  const tensors = stacked.flatMap(({ module, count, linear, inner }): [string, Tensor][] => {
    const factors = Array.from({ length: count }, (_, e) => expert(`${module}.${e}`, linear));
    const at = `${PREFIX}${module}.${inner ? "base_layer." : ""}`;
    const { shape } = factors[0]!.B;
    return [
      [`${at}lora_A.weight`, concat(factors.map(({ A }) => A))],
      [`${at}lora_B.weight`, stack(factors.map(({ B }) => B), 2).reshape([shape[0]!, shape[1]! * count])], // prettier-ignore
    ];
  });
  return { parameters: all ? short : [...whole], tensors };
}

function refuseStack(why: string): never {
  throw new Error(
    `peft's stacked factors hold no such adapter: ${why}; declare the method with the targets gate_up and down_proj, or export as peft-lora`,
  );
}
