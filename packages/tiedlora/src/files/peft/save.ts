/** Writes adapters in the formats of Python's peft: LoRA, expanded to one A and one B for each module, and VeRA, compact. */
import { type Tensor, writeSafetensors } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { Adapter } from "../../adapter/adapter.ts";
import { adaptersOf } from "../../adapter/adapter.ts";
import { moduleInfos, storedInOut, type AdaptableModule } from "../../adapter/modules.ts";
import { type Json, scaled } from "../../method.ts";
import type { AdapterLayer } from "../../adapter/layer.ts";
import { CONFIG_FILE, parametersToWrite, TENSORS_FILE, type Provenance } from "../native.ts";
import type { OutputFile } from "../../output-file.ts";
import { isExpert, stackFactors } from "./experts.ts";
import { PREFIX } from "./keys.ts";
import { shortNames } from "./targets.ts";
import { tokenRows } from "./trained-tokens.ts";
import { BLOCKS, packTied } from "./vera.ts";

type Tensors = [name: string, tensor: Tensor][];

/**
 * The files of an adapter as peft's LoRA, in f32: every module's ΔW is written as its own A and B, so that any program that reads
 * LoRA can read it. Throws for methods whose update is not a product B A, except DoRA and LoRA with a bias.
 */
export function peftLoraFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  return loraFiles(adapter, provenance, false);
}

/**
 * As `peftLoraFiles`, with the factors of a layer's experts stacked, which peft needs where transformers stacks their weights (from 5 on).
 * Throws unless all experts of a layer are adapted, with the targets `gate_up`, `down_proj` or both, and all ranks are the same.
 */
export function peftStackedFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  return loraFiles(adapter, provenance, true);
}

function loraFiles(adapter: Adapter, provenance: Provenance, stacks: boolean): OutputFile[] {
  if (adapter.plan.sites.length === 0)
    throw new Error(
      `${adapter.method.name} trains copies of the model's own parameters alone, and peft's LoRA needs a module with A and B; ` +
        `${adapter.method.name === "norm-tuning" ? "export as peft" : "keep the native file"}, or merge it`,
    );
  checkNoNorms(adapter);
  const folded = foldsScale(adapter);
  const all = [...adapter.layers()].map(([host, layer]) => ({ host, layer, ...loraFactors(adapter, layer, folded) })); // prettier-ignore
  const inStack = ({ layer }: { readonly layer: AdapterLayer }): boolean =>
    stacks && isExpert(layer.member.path);
  const infos = moduleInfos(adaptersOf(adapter.model).hosts);
  const stacked = stackFactors(all.filter(inStack), infos);
  const tensors = all.flatMap(({ host, layer, A, B, c, m }): Tensors => {
    if (inStack({ layer })) return [];
    const at = `${PREFIX}${layer.member.path}`;
    const [nameA, nameB] =
      host instanceof nn.Embedding
        ? ["lora_embedding_A", "lora_embedding_B"]
        : ["lora_A.weight", "lora_B.weight"];
    const named: [string, Tensor | undefined][] = [
      [nameA, A],
      [nameB, B],
      ["lora_B.bias", c],
      ["lora_magnitude_vector", m],
    ];
    return named.flatMap(([name, tensor]): Tensors => (tensor ? [[`${at}.${name}`, tensor]] : []));
  });
  const { method } = adapter;
  const ranks = all.map(({ A }) => A.shape[0]!);
  const rank = ranks.includes(method.rank) ? method.rank : ranks[0]!;
  const alphas = all.map(({ layer }, i) => (folded ? ranks[i]! : alphaOf(layer, ranks[i]!)));
  const alpha = alphas.includes(method.alpha) ? method.alpha : alphas[0]!;
  const differing = (values: readonly number[], usual: number): Record<string, number> =>
    Object.fromEntries(
      values.flatMap((value, i) => (value === usual ? [] : [[all[i]!.layer.member.path, value]])),
    );
  const [rankPattern, alphaPattern] = [differing(ranks, rank), differing(alphas, alpha)];
  const patterns = Object.keys({ ...rankPattern, ...alphaPattern });
  if (stacked.parameters.length > 0 && patterns.length > 0)
    throw new Error(
      `peft has one rank and one scale for all stacked factors, and those of ${patterns[0]} differ; export as peft-lora`,
    );
  const rows = tokenRows(adapter).map(({ name, write }): [string, Tensor] => [name, write!()]);
  const written = [...tensors, ...stacked.tensors, ...rows, ...replacedToWrite(adapter)];
  return outputFiles(adapter, provenance, written, {
    peft_type: "LORA",
    ...(stacked.parameters.length > 0 && {
      target_modules: shortNames(all.filter((one) => !inStack(one)).map(({ layer }) => layer.member.path), infos), // prettier-ignore
      target_parameters: [...stacked.parameters],
    }),
    bias: method.bias === "adapted" ? "lora_only" : method.bias,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: method.dropout,
    rank_pattern: rankPattern,
    alpha_pattern: alphaPattern,
    use_rslora: method.scaling === "sqrt-rank" && !folded,
    use_dora: all.some(({ m }) => m !== undefined),
    ...(all.some(({ c }) => c !== undefined) && { lora_bias: true }),
    init_lora_weights: true,
    ...(rows.length > 0 && { trainable_token_indices: method.trainedTokens }),
  });
}

/** Throws for an adapter that trains rows of the embedding too, for which only files of LoRA have a place. */
export function checkNoTokens({ plan }: Adapter): void {
  if (plan.tokens !== null)
    throw new Error(
      `the adapter trains rows of ${plan.tokens.site.path} too (trainedTokens), for which only the formats native and peft-lora have a place`,
    );
}

/** Throws for an adapter of norms, which peft's methods do not adapt. */
export function checkNoNorms({ plan }: Adapter): void {
  const norm = plan.sites.find(({ site }) => site.members[0]!.kind === "norm")?.site;
  if (norm !== undefined)
    throw new Error(
      `${norm.path} is a norm, which peft adapts by LN_TUNING alone; save the adapter in the native format, or merge it`,
    );
}

/** One module's update in the form of LoRA, with the additions of variants: c, a bias on B; m, DoRA's row lengths. */
export interface LoraFactors {
  readonly A: Tensor;
  readonly B: Tensor;
  readonly c?: Tensor;
  readonly m?: Tensor;
}

/**
 * Whether the scale must be multiplied into B when the adapter is written, because the module multiplies it into v: otherwise v ⊙ B
 * would be rounded before scaling, and outputs would differ in the last bits. A scale that is a power of two makes no difference.
 */
export function foldsScale(adapter: Adapter): boolean {
  const exact = (scale: number): boolean => Number.isInteger(Math.log2(Math.abs(scale)));
  return "v" in adapter.method.factors && [...adapter.layers()].some(([, layer]) => !exact(layer.scale));
}

/** One module's update as `LoraFactors`. `folded`: B includes the scale. Throws for methods that have no such form. */
export function loraFactors({ method }: Adapter, layer: AdapterLayer, folded = false): LoraFactors {
  const low = layer.lowRank(folded ? (f) => ({ ...f, v: scaled(f["v"]!, layer.scale) }) : undefined);
  if (low !== null) return low;
  const { offset, out } = layer.member;
  const { A, B, ...rest } = layer.factors(offset, out);
  const known = method.recipe.method === "dora" || method.recipe.method === "lora-bias";
  if (known && A !== undefined && B !== undefined) return { A, B, ...rest };
  throw new Error(
    `${method.name} has no update of the form B A (it declares no lowRank), so peft's LoRA cannot hold it; save it in the native format, or merge it`,
  );
}

/** The alpha that yields a module's scale at this rank: the declared alpha, unless the rank or the multiplier has changed. */
function alphaOf({ owner, plan, scale }: AdapterLayer, rank: number): number {
  if (owner.multiplier === 1 && rank === plan.dims.rank) return plan.alpha;
  return owner.method.scaling === "sqrt-rank" ? scale * Math.sqrt(rank) : scale * rank;
}

/**
 * The files of a tied adapter as peft's VeRA: one A and one B for all modules, and each module's u and s · v. peft multiplies in
 * the same order, so there is no additional rounding. Further training in Python trains u and v only. If the adapter has several
 * pairs, the metadata lists them, so that they can be read back. Throws for methods outside the Tied-LoRA family, for embeddings,
 * and if the files would be much larger than those of LoRA.
 */
export function peftVeraFiles(adapter: Adapter, provenance: Provenance = {}): OutputFile[] {
  checkNoNorms(adapter);
  checkNoTokens(adapter);
  const embedding = [...adapter.layers()].find(([host]) => host instanceof nn.Embedding)?.[1].member;
  if (embedding !== undefined)
    throw new Error(
      `peft's VeRA adapts linear modules only, and ${embedding.path} is an embedding; export as peft-lora`,
    );
  const { A, B, vectors, blocks } = packTied(adapter);
  const tensors = vectors.flatMap(({ path, u, v }): Tensors => [
    [`${PREFIX}${path}.vera_lambda_b`, v],
    [`${PREFIX}${path}.vera_lambda_d`, u],
  ]);
  const projections: Tensors = [
    ["base_model.vera_A", A],
    ["base_model.vera_B", B],
  ];
  const { method } = adapter;
  return outputFiles(
    adapter,
    provenance,
    [...projections, ...tensors, ...replacedToWrite(adapter)],
    {
      peft_type: "VERA",
      bias: method.bias === "adapted" ? "vera_only" : method.bias,
      r: A.shape[0]!,
      projection_prng_key: 0,
      save_projection: true,
      vera_dropout: method.dropout,
      d_initial: 0.1,
      init_weights: true,
    },
    blocks.length > 1 ? { [BLOCKS]: JSON.stringify(blocks) } : {},
  );
}

/** The copies of the model's own parameters. peft names the bias of an adapted module after the layer inside the adapter. */
export function replacedToWrite(adapter: Adapter): Tensors {
  const adapted = new Set([...adapter.layers()].map(([, { member }]) => `${member.path}.bias`));
  return [...adapter.replacements()].map(([path, parameter]) => {
    const name = adapted.has(path) ? `${path.slice(0, -"bias".length)}base_layer.bias` : path;
    return [`${PREFIX}${name}`, parameter];
  });
}

/** The files of an adapter: its tensors, and a config with the fields of every kind and the given ones. */
export function outputFiles(
  adapter: Adapter,
  provenance: Provenance,
  tensors: Tensors,
  fields: Readonly<Record<string, Json>>,
  more: Readonly<Record<string, string>> = {},
): OutputFile[] {
  const layers = [...adapter.layers()];
  const paths = layers.map(([, { member }]) => member.path);
  const saved = adapter.plan.replaced
    .filter(({ factor }) => factor === "saved")
    .map(({ path }) => path.slice(0, path.lastIndexOf(".")));
  const config: Record<string, Json> = {
    task_type: "CAUSAL_LM",
    base_model_name_or_path: provenance["base_model"] ?? null,
    ...(provenance["base_revision"] !== undefined && { revision: provenance["base_revision"] }),
    inference_mode: true,
    target_modules: shortNames(paths, moduleInfos(adaptersOf(adapter.model).hosts)),
    modules_to_save: saved.length === 0 ? null : [...new Set(saved)],
    fan_in_fan_out: layers.some(([host]) => isConv1d(host)),
    ...fields,
  };
  const metadata = {
    ...more,
    format: "pt",
    "tiedlora.method": adapter.method.name,
    "tiedlora.provenance": JSON.stringify(provenance),
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  return [
    [TENSORS_FILE, writeSafetensors(parametersToWrite(tensors), Object.entries(metadata))],
    [CONFIG_FILE, `${JSON.stringify(sorted, null, 2)}\n`],
  ];
}

function isConv1d(host: AdaptableModule): boolean {
  return host instanceof nn.Linear && storedInOut(host);
}
