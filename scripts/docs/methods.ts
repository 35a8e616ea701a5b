/**
 * The tables of methods, made from the declarations: what is trained, tied and zero at first, and the counts on three models. Only
 * formulas are written here, once for each method; the type checker proves that none is missing.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "csv-parse/sync";
import { adaptableSpecs, configFrom, type DecoderConfig, parameterSpecs, preset } from "@tiedlora/models";
import { countParameters, type Factor, type Method, methodByName, planAdapter, type MethodName, type Tie } from "tiedlora"; // prettier-ignore
import { ENTRIES } from "tiedlora/internal";
import { ROOT } from "./navigation.ts";

interface About {
  /** The update ΔW, or the output z, of one module; s is the scale, alpha / rank. */
  readonly formula: string;
  /** The number of trained parameters: L layers, d inputs, o outputs, rank r, for queries, keys and values as one target. */
  readonly count: string;
}

const PAIR = { formula: "s B A", count: "Lr(d + o)" };
const TIED = "s diag(v) B diag(u) A";

const ABOUT: { readonly [N in MethodName]: About } = {
  lora: PAIR,
  vera: { formula: TIED, count: "L(r + o)" },
  tl1: { formula: TIED, count: "dr" },
  tl2: { formula: TIED, count: "dr + oL" },
  tl3: { formula: TIED, count: "(L + o)r" },
  tl4: { formula: TIED, count: "(L + o)r + oL" },
  tl5: { formula: TIED, count: "(d + o)r" },
  tl6: { formula: TIED, count: "(L + d + o)r + oL" },
  "tied-gates": { formula: "s B diag(u) A", count: "(L + d + o)r" },
  rslora: { formula: "(alpha/√r) B A", count: PAIR.count },
  "lora-fa": { formula: PAIR.formula, count: "Lor" },
  "sharelora-a": { formula: PAIR.formula, count: "(d + Lo)r" },
  "sharelora-b": { formula: PAIR.formula, count: "(Ld + o)r" },
  "sharelora-ab": { formula: PAIR.formula, count: "(d + o)r" },
  dora: { formula: "m ⊙ (W + s B A) / ‖W + s B A‖ − W", count: "L(r(d + o) + o)" },
  "lora-bias": { formula: "z = W x + s (B A x + c)", count: "L(r(d + o) + o)" },
  "lora-residual": { formula: "s (B A − B₀ A₀), B₀ A₀ the start", count: PAIR.count },
  "lora-xs": { formula: "s U Σ R Vᵀ, of W's leading singular vectors", count: "Lr²" },
  "vb-lora": { formula: "s B A, pieces of both Σ softmax(top k) · bank", count: "256b + 256Lr(d + o)/b" },
  rasa: { formula: "s [B ∣ B_S] diag(d, D_S) [A; A_S]", count: "Lr(d + o) + L(r − k + kL)" },
  lily: { formula: "z = W x + s (Σ pₑ Bₑ) A x, p = mean softmax(R A x)", count: "rdL/4 + 4ro + 4Lr" },
  prolora: { formula: "s [B ∣ rotated B0] [A; rotated A0]", count: "L(u + (r − u)/m)(d + o)" },
  nola: { formula: "s (Σ βⱼ Bⱼ)(Σ αᵢ Aᵢ)", count: "2kL" },
  "uni-lora": { formula: "s B A, all elements θ[index] / √n", count: "length of θ" },
  "tiny-lora": { formula: "s U Σ (Σ vᵢ Pᵢ) Vᵀ", count: "length of v" },
  "tens-lora": { formula: "s U1 (G ×₃ U3[q] ×₄ U4[l]) U2", count: "r⁴ + r(d + o) + r + Lr" },
  "bs-lora": { formula: "s (B A + B_L A_L + B_M A_M)", count: "(2L + 1)r(d + o)" },
  ia3: { formula: "z = l ⊙ (W x + b), or W (l ⊙ x) + b", count: "Lo" },
  bitfit: { formula: "z = W x + b + s c", count: "Lo" },
  "rand-lora": { formula: "s Σⱼ Bⱼ Λⱼ A Γⱼ", count: "L(d + d²/r)" },
  "ada-lora": { formula: "s P diag(λ) Q", count: "Lr(d + o + 1)" },
  loha: { formula: "s (B1 A1) ⊙ (B2 A2)", count: "2Lr(d + o)" },
  hra: { formula: "z = W H x, H = Π (I − 2uuᵀ/‖u‖²)", count: "Ldr" },
  oft: { formula: "z = W R x, blocks of R (I + K)(I − K)⁻¹", count: "Ld(b − 1)/2" },
  "trained-tokens": { formula: "rows of an embedding", count: "d · tokens" },
  "prefix-tuning": { formula: "n keys and values in front of each attention", count: "n(o − d)L" },
  "prompt-tuning": { formula: "n vectors in front of each sequence", count: "n d" },
  "norm-tuning": { formula: "scales and biases of norms", count: "(2L + 1)d, twice with biases" },
  full: { formula: "any, of all weights", count: "all" },
  lokr: { formula: "s W1 ⊗ W2, W2 = A2 B2 if large", count: "L(l m + r(k + n)), o = lk, d = mn" },
};

/** A model of which counts are shown. */
const MODELS: Readonly<Record<string, DecoderConfig>> = {
  stories260K: configFrom({
    model_type: "llama",
    vocab_size: 512,
    hidden_size: 64,
    intermediate_size: 172,
    num_hidden_layers: 5,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    tie_word_embeddings: true,
  }),
  "GPT-2 small": configFrom({
    model_type: "gpt2",
    vocab_size: 50_257,
    n_embd: 768,
    n_layer: 12,
    n_head: 12,
    n_positions: 1024,
  }),
  "LLaMA-2-7B": preset("llama-2-7b")!,
};

const RANK = 8;

const show = (n: number): string => n.toLocaleString("en-US");

/** The factors that a method has in a Llama. */
function factorsOf(method: Method): [string, Factor][] {
  const whole = methodByName(method.name, { rank: RANK, target: "all-linear" });
  const llama = MODELS["LLaMA-2-7B"]!;
  const { factors } = planAdapter(adaptableSpecs(llama), whole, parameterSpecs(llama));
  const used = new Set(factors.map(({ factor }) => factor));
  return Object.entries<Factor>(method.factors).filter(([name]) => used.has(name));
}

function names(method: Method, holds: (factor: Factor) => boolean): string {
  const found = factorsOf(method).flatMap(([name, factor]) => (holds(factor) ? [name] : []));
  return found.map((name) => name.replaceAll("_", "\\_")).join(", ");
}

/** What is tied, as text: "A, B" if all layers share them; other ways of tying are named. */
function tied(method: Method): string {
  const by = new Map<string, string[]>();
  for (const [name, { tie }] of factorsOf(method)) {
    const how = tieText(tie);
    if (how !== null) by.set(how, [...(by.get(how) ?? []), name.replaceAll("_", "\\_")]);
  }
  const parts = [...by].map(([how, all]) => `${all.join(", ")}${how === "" ? "" : ` (${how})`}`);
  return parts.join("; ") || "nothing";
}

function tieText(tie: Tie): string | null {
  if (tie === "none") return null;
  if (tie === "all") return "";
  if (typeof tie === "string") return tie === "model" ? "whole model" : `by ${tie}`;
  if (typeof tie === "object" && "blocks" in tie) return `${tie.blocks} layers`;
  return "layer";
}

/** The mean over the tasks of the paper's grid at rank 8, by method. */
function measured(): Map<string, string> {
  const rows: Readonly<Record<string, string>>[] = parse(
    readFileSync(join(ROOT, "docs/paper-grid/summary.csv"), "utf8"),
    { columns: true },
  );
  const own = rows.filter((row) => row["task"] === "all tasks" && row["rank"] === String(RANK));
  return new Map(own.map((row) => [row["method"]!, Number(row["mean"]).toFixed(1)]));
}

function table(head: readonly string[], right: number, rows: readonly (readonly string[])[]): string {
  const widths = head.map((one, i) => Math.max(...[one, ...rows.map((row) => row[i]!)].map((cell) => Array.from(cell).length), 3)); // prettier-ignore
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => { const room = " ".repeat(widths[i]! - Array.from(cell).length); return i >= right ? room + cell : cell + room; }).join(" | ")} |`; // prettier-ignore
  const rule = widths.map((width, i) => (i >= right ? `${"-".repeat(width - 1)}:` : "-".repeat(width)));
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}

/** Every method: formula, what is trained, tied and zero at first. */
function formulas(): string {
  const rows = ENTRIES.map(({ name, title }) => {
    const method = methodByName(name, { rank: RANK });
    const start = method.products.length > 0;
    return [
      `\`${name}\``,
      title,
      ABOUT[name].formula,
      names(method, ({ trained }) => trained) || (name === "full" ? "everything" : "norms"),
      tied(method),
      start ? names(method, ({ init }) => init.zero) : "–",
      names(method, ({ bySeed }) => bySeed) || (method.seeded ? "in programs" : "–"),
    ];
  });
  return table(
    ["name", "method", "ΔW or z", "trained", "tied over layers", "zero at first", "by seed"],
    7,
    rows,
  );
}

/** Every method: the formula of its count, counts on the models, the rate and the measurement. */
function counts(): string {
  const results = measured();
  const models = Object.entries(MODELS);
  const rows = ENTRIES.map(({ name, learningRate }) => {
    const counted = models.map(([, config]) =>
      show(
        countParameters(adaptableSpecs(config), methodByName(name, { rank: RANK }), parameterSpecs(config))
          .trainable,
      ),
    );
    return [`\`${name}\``, ABOUT[name].count, ...counted, String(learningRate), results.get(name) ?? "–"];
  });
  return table(["name", "trained parameters", ...models.map(([name]) => name), "rate", "measured"], 2, rows);
}

/** The paper's configurations, for the README. */
function family(): string {
  const linears = adaptableSpecs(MODELS["LLaMA-2-7B"]!);
  const members = ["lora", "vera", "tl1", "tl2", "tl3", "tl4", "tl5", "tl6"] as const;
  const rows = members.map((name) => {
    const method = methodByName(name, { rank: RANK });
    const shown = ABOUT[name].count.replaceAll("o", "3d").replace("Lr(d + 3d)", "4Ldr").replace("(d + 3d)r", "4dr").replace("d + 3d", "4d"); // prettier-ignore
    return [
      `\`${name}\``,
      names(method, ({ trained }) => trained),
      tied(method).replace(/ \(whole model\)/, ""),
      names(method, ({ init }) => init.zero),
      shown.replace("3dL", "3dL"),
      show(countParameters(linears, method).trainable),
    ];
  });
  const head = ["name", "trained", "tied", "starts at zero", "trainable (L layers, width d, rank r)", "LLaMA-2-7B, r = 8"]; // prettier-ignore
  return table(head, 5, rows);
}

const TABLES: Readonly<Record<string, () => string>> = { formulas, counts, family };

/** A page with each table between `<!-- methods: NAME -->` and `<!-- end -->` made anew. Throws for a name that is no table. */
export function withTables(page: string): string {
  return page.replaceAll(
    /(<!-- methods: (\w+) -->\n)[\s\S]*?(\n<!-- end -->)/g,
    (_, begin: string, name: string, end: string) => {
      const make = TABLES[name];
      if (make === undefined)
        throw new Error(`<!-- methods: ${name} -->: there is no such table; expected ${Object.keys(TABLES).join(", ")}`); // prettier-ignore
      return `${begin}\n${make()}\n${end}`;
    },
  );
}
