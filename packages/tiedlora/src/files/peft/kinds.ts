/**
 * The files of Python's peft for methods other than LoRA and VeRA, one entry each: how the config's fields become options of the
 * method, and which tensor holds which factor. Reading and writing both follow from the entry.
 */
import { describeValue, FormatError } from "@tiedlora/core";
import type { Adapter } from "../../adapter/adapter.ts";
import type { Json } from "../../method.ts";
import { endsWithName } from "../../match.ts";
import { methods } from "../../methods/index.ts";
import { at, COUNT, type PeftKind, plain, positive, transposed } from "./kind.ts";
import { LOKR } from "./lokr.ts";
import { PREFIX_TUNING } from "./prefix-tuning.ts";
import { PROMPT_TUNING } from "./prompt-tuning.ts";
import { RANDLORA } from "./rand-lora.ts";
import { TRAINABLE_TOKENS } from "./trained-tokens.ts";

const IA3: PeftKind = {
  method: "ia3",
  bias: "ia3_only",
  rank: null,
  dropout: null,
  declare: (fields, common) => {
    const named = fields.strings("feedforward_modules");
    const feedforward = common.target.filter((path) => named.some((name) => endsWithName(path, name)));
    return methods.ia3({ ...common, feedforward });
  },
  fields: (adapter) => ({ feedforward_modules: shortest(scaledAtInput(adapter)), init_ia3_weights: true }),
  tensors: (layer) => {
    if (layer === null) return [];
    const { in: width, out } = layer.member;
    const input = layer.parameter("l_in") !== undefined;
    return [plain(layer, input ? "l_in" : "l_out", "ia3_l", input ? [1, width] : [out, 1])];
  },
};

function scaledAtInput(adapter: Adapter): string[] {
  const layers = [...adapter.layers()].map(([, layer]) => layer);
  return layers.filter((layer) => layer.parameter("l_in") !== undefined).map(({ member }) => member.path);
}

/** The last names of paths, each once. */
function shortest(paths: readonly string[]): string[] {
  return [...new Set(paths.map((path) => path.slice(path.lastIndexOf(".") + 1)))];
}

/** peft divides by the rank plus this. */
const RANK_SHIFT = 1e-5;

const ADALORA: PeftKind = {
  method: "ada-lora",
  bias: "lora_only",
  rank: ["init_r", 12],
  dropout: "lora_dropout",
  declare: (fields, common, file) => {
    const alpha = fields.number("lora_alpha", 8, (a) => a > 0, "a number above 0");
    const ranks = prunedRanks(fields.raw["rank_pattern"], common.target, file);
    const rankPattern = Object.fromEntries(ranks);
    const scale = (rank: number): number => (alpha * rank) / (rank + RANK_SHIFT);
    const alphaPattern = Object.fromEntries(ranks.map(([path, rank]) => [path, scale(rank)]));
    return methods.adaLora({ ...common, alpha: scale(common.rank), rankPattern, alphaPattern });
  },
  fields: ({ method, plan }) => {
    const ranks = plan.sites.map(({ dims }) => dims.rank);
    const pattern = plan.sites.map(({ site, dims }): [string, Json] => [
      `${site.path}.lora_E`,
      Array<boolean>(dims.rank).fill(true),
    ]);
    return {
      init_r: method.rank,
      target_r: method.rank,
      lora_alpha: Number(((method.alpha * (method.rank + RANK_SHIFT)) / method.rank).toPrecision(12)),
      total_step: 1,
      ...(ranks.some((rank) => rank !== method.rank) && { rank_pattern: Object.fromEntries(pattern) }),
    };
  },
  tensors: (layer) =>
    layer === null
      ? []
      : [
          plain(layer, "Q", "lora_A"),
          plain(layer, "lambda", "lora_E", [layer.parameter("lambda")!.size, 1]),
          plain(layer, "P", "lora_B"),
        ],
};

/** The ranks that pruning has left, by path, from AdaLoRA's `rank_pattern`: for each module, which of its triplets are kept. */
function prunedRanks(pattern: unknown, target: readonly string[], file: string): [string, number][] {
  if (pattern === undefined || pattern === null) return [];
  const fail = (found: string, expected: string): never => {
    throw new FormatError({ file, tensor: "rank_pattern", found, expected });
  };
  if (typeof pattern !== "object") fail(describeValue(pattern), "an object of lists by module");
  return Object.entries(pattern as Record<string, unknown>).flatMap(([key, kept]): [string, number][] => {
    const path = key.replace(/^base_model\.model\./, "").replace(/\.lora_E(\.[^.]+)?$/, "");
    if (!target.includes(path)) return [];
    if (!Array.isArray(kept) || !kept.every((one) => typeof one === "boolean"))
      fail(`${describeValue(kept)} for ${key}`, "a list of true and false");
    const rank = (kept as boolean[]).filter(Boolean).length;
    if (rank === 0)
      fail(`no triplet kept for ${key}`, "at least one; leave such modules out of target_modules");
    return [[path, rank]];
  });
}

const HRA: PeftKind = {
  method: "hra",
  bias: "hra_only",
  rank: ["r", 8],
  dropout: null,
  declare: (fields, common) => {
    fields.only("apply_GS", [false, null]);
    return methods.hra(common);
  },
  fields: ({ method }) => ({ r: method.rank, apply_GS: false, init_weights: true }),
  tensors: (layer) => (layer === null ? [] : [transposed(layer, "U", "hra_u")]),
};

const OFT: PeftKind = {
  method: "oft",
  bias: "oft_only",
  rank: null,
  dropout: "module_dropout",
  declare: (fields, common) => {
    for (const field of ["coft", "block_share"]) fields.only(field, [false, null]);
    fields.only("use_cayley_neumann", [true, null]);
    fields.only("num_cayley_neumann_terms", [5, null]);
    fields.only("r", [0, null]);
    return methods.oft({ ...common, block: fields.number("oft_block_size", 32, (n) => n >= 2, COUNT) });
  },
  fields: (adapter) => ({
    r: 0,
    oft_block_size: blockOf(adapter),
    use_cayley_neumann: true,
    num_cayley_neumann_terms: 5,
    coft: false,
    block_share: false,
    init_weights: true,
  }),
  tensors: (layer) => (layer === null ? [] : [plain(layer, "K", "oft_R.weight")]),
};

/** The block size of an OFT adapter. Throws unless it is the same in all modules, since peft has one for all. */
function blockOf(adapter: Adapter): number {
  const sizes = adapter.plan.sites.map(({ site, factors }) => site.in / factors.get("K")!.shape[0]!);
  const other = sizes.findIndex((size) => size !== sizes[0]);
  if (other < 0) return sizes[0]!;
  const [first, second] = [adapter.plan.sites[0]!, adapter.plan.sites[other]!];
  throw new Error(
    `peft's OFT has one block size for all modules, and ${first.site.path} has blocks of ${sizes[0]}, ${second.site.path} of ${sizes[other]}; declare the method with a block that divides all inputs`,
  );
}

const LOHA: PeftKind = {
  method: "loha",
  bias: "none",
  rank: ["r", 8],
  dropout: "rank_dropout",
  declare: (fields, common) => {
    fields.only("module_dropout", [0, null]);
    fields.only("rank_dropout", [0, null]);
    const alpha = fields.number("alpha", 8, (a) => a !== 0, "a number other than 0");
    return methods.loha({ ...common, alpha, dropout: 0 });
  },
  fields: ({ method }) => ({
    r: method.rank,
    alpha: method.alpha,
    use_effective_conv2d: false,
    init_weights: true,
  }),
  tensors: (layer) =>
    layer === null
      ? []
      : [
          plain(layer, "B1", "hada_w1_a"),
          plain(layer, "A1", "hada_w1_b"),
          plain(layer, "B2", "hada_w2_a"),
          plain(layer, "A2", "hada_w2_b"),
        ],
};

const VBLORA: PeftKind = {
  method: "vb-lora",
  bias: "vblora_only",
  rank: ["r", 4],
  dropout: "vblora_dropout",
  declare: (fields, common) =>
    methods.vbLora({
      ...common,
      vectors: fields.number("num_vectors", 256, positive, COUNT),
      length: fields.number("vector_length", 256, positive, COUNT),
      topK: fields.number("topk", 2, positive, COUNT),
    }),
  fields: (adapter) => {
    const [vectors, length] = adapter.select({ factors: ["bank"] })[0]!.shape as [number, number];
    const topk = adapter.method.recipe.options["topK"] ?? 2;
    return {
      r: adapter.method.rank,
      num_vectors: vectors,
      vector_length: length,
      topk,
      save_only_topk_weights: false,
    };
  },
  tensors: (layer, adapter) => {
    if (layer === null) {
      const bank = adapter.select({ factors: ["bank"] })[0]!;
      return [{ name: "base_model.vblora_vector_bank", parameter: bank, shape: bank.shape }];
    }
    const b = layer.parameter("b")!;
    const [rank, pieces, vectors] = b.shape as [number, number, number];
    return [
      plain(layer, "a", "vblora_logits_A"),
      {
        name: at(layer, "vblora_logits_B"),
        parameter: b,
        shape: [pieces, rank, vectors],
        write: () => b.permute([1, 0, 2]),
        read: (values) => swapped(values, pieces, rank, vectors),
      },
    ];
  },
};

/** [a, b, n] -> [b, a, n], row-major. */
function swapped(values: Float32Array, a: number, b: number, n: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < a; i++)
    for (let j = 0; j < b; j++)
      out.set(values.subarray((i * b + j) * n, (i * b + j + 1) * n), (j * a + i) * n);
  return out;
}

/** The kinds by `peft_type`. */
export const KINDS: Readonly<Record<string, PeftKind>> = {
  IA3,
  ADALORA,
  HRA,
  OFT,
  LOHA,
  LOKR,
  VBLORA,
  RANDLORA,
  PREFIX_TUNING,
  PROMPT_TUNING,
  TRAINABLE_TOKENS,
};
