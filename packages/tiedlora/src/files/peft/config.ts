/** Reads adapter_config.json of Python's peft, and throws for settings with which an adapter would be computed wrongly. */
import { describeValue, FormatError } from "@tiedlora/core";
import { type BiasMode, isScale } from "../../method.ts";
import { patternMatcher } from "../../match.ts";
import { compilePattern, type Pattern, PatternWork } from "../../regex/pattern.ts";

/** The modules that a config selects. */
export interface PeftTargets {
  /** Names or ends of paths, a pattern over whole paths, "all-linear", or null: peft's default for the architecture. */
  readonly modules: readonly string[] | Pattern | "all-linear" | null;
  readonly exclude: readonly string[] | Pattern | null;
  readonly layers: readonly number[] | null;
  readonly layersPattern: readonly string[];
  readonly modulesToSave: readonly string[];
  /** Names or ends of names of stacked parameters of experts. */
  readonly parameters: readonly string[];
}

export interface PeftLoraConfig {
  readonly targets: PeftTargets;
  readonly rank: number;
  readonly alpha: number;
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  readonly rsLora: boolean;
  readonly dora: boolean;
  readonly loraBias: boolean;
  readonly dropout: number;
  readonly bias: BiasMode;
  /** Tokens whose rows of an embedding are trained: by the name of the module, or of the input embedding; null for none. */
  readonly tokens: { readonly module: string | null; readonly ids: readonly number[] } | null;
}

export interface PeftVeraConfig {
  readonly targets: PeftTargets;
  readonly rank: number;
  readonly dropout: number;
  readonly bias: BiasMode;
  /** Whether the file holds A and B; otherwise they are drawn from `seed`. */
  readonly saveProjection: boolean;
  readonly seed: number;
  readonly dInitial: number;
}

/** The largest number of patterns in a field: more than any model has modules. */
const MAX_PATTERNS = 10_000;

type Raw = Readonly<Record<string, unknown>>;

/** Fields of variants, with the values that mean plain LoRA. With any other value, something else than LoRA is computed. */
const PLAIN_LORA: Readonly<Record<string, readonly unknown[]>> = {
  layer_replication: [null],
  megatron_config: [null],
  alora_invocation_tokens: [null],
  use_qalora: [false, null],
  use_bdlora: [false, null],
  velora_config: [null],
  monteclora_config: [null],
  kasa_config: [null],
  arrow_config: [null],
  // with other values, peft changes the base weights when it loads the adapter
  init_lora_weights: [null, true, false, "gaussian", "orthogonal", "eva"],
};

const isRank = (r: number): boolean => Number.isSafeInteger(r) && r >= 1;
const RANK = "an integer of at least 1";

export function parsePeftLora(raw: Raw, file: string): PeftLoraConfig {
  const f = new Reader(raw, file);
  for (const [field, plain] of Object.entries(PLAIN_LORA)) f.only(field, plain);
  if (f.meansEmbeddings()) f.only("ensure_weight_tying", [false, null]);
  return {
    targets: f.targets(),
    rank: f.number("r", 8, isRank, RANK),
    alpha: f.number("lora_alpha", 8, isScale, "a number other than 0, from 1e-20 to 1e20"),
    rankPattern: f.numbers("rank_pattern", isRank),
    alphaPattern: f.numbers("alpha_pattern", isScale),
    rsLora: f.flag("use_rslora", false),
    dora: f.flag("use_dora", false),
    loraBias: f.flag("lora_bias", false),
    dropout: f.dropout("lora_dropout"),
    bias: f.bias("lora_only"),
    tokens: f.tokens(),
  };
}

export function parsePeftVera(raw: Raw, file: string): PeftVeraConfig {
  const f = new Reader(raw, file);
  return {
    targets: f.targets(),
    rank: f.number("r", 256, isRank, RANK),
    dropout: f.dropout("vera_dropout"),
    bias: f.bias("vera_only"),
    saveProjection: f.flag("save_projection", true),
    seed: f.number("projection_prng_key", 0, Number.isSafeInteger, "an integer"),
    dInitial: f.number("d_initial", 0.1, () => true, "a number"),
  };
}

/** Reads the fields of a config, with defaults. A value of the wrong type throws a FormatError that names the field. */
export class Reader {
  readonly #raw: Raw;
  readonly #file: string;
  readonly #work = new PatternWork();

  constructor(raw: Raw, file: string) {
    this.#raw = raw;
    this.#file = file;
  }

  /** The config as it was read. */
  get raw(): Raw {
    return this.#raw;
  }

  /** Throws a FormatError about the value of a field. */
  fail(field: string, expected: string, hint?: string): never {
    throw new FormatError({
      file: this.#file,
      tensor: field,
      found: describeValue(this.#raw[field]),
      expected,
      hint,
    });
  }

  /** Throws unless the value of a field is in a list; an absent field counts as null. */
  only(field: string, plain: readonly unknown[]): void {
    if (plain.includes(this.#raw[field] ?? null)) return;
    const known = plain.filter((value) => value !== null).map((value) => JSON.stringify(value));
    this.fail(
      field,
      known.length === 0 ? "null" : known.join(", "),
      "This variant is not supported: in Python, merge the adapter into the model, or convert it to plain LoRA.",
    );
  }

  /** Whether an embedding might be adapted or saved: only then does the tying of embeddings matter. */
  meansEmbeddings(): boolean {
    const { target_modules: targets, modules_to_save: saved } = this.#raw;
    const names = [targets, saved].flat();
    return typeof targets === "string" || names.some((name) => /(embed|wte|lm_head)/.test(String(name)));
  }

  number(field: string, otherwise: number, valid: (value: number) => boolean, expected: string): number {
    const value = this.#raw[field] ?? otherwise;
    if (typeof value !== "number" || !Number.isFinite(value) || !valid(value))
      return this.fail(field, expected);
    return value;
  }

  numbers(field: string, valid: (value: number) => boolean): Record<string, number> {
    const value = this.#raw[field] ?? {};
    const wrong = (one: unknown): boolean => typeof one !== "number" || !Number.isFinite(one) || !valid(one);
    if (typeof value !== "object" || Array.isArray(value) || Object.values(value).some(wrong))
      return this.fail(field, "an object of numbers by module name");
    const keys = Object.keys(value);
    if (keys.length > MAX_PATTERNS) return this.fail(field, `at most ${MAX_PATTERNS} names or patterns`);
    this.#checked(field, () => keys.forEach((key) => patternMatcher(key, this.#work)));
    return value as Record<string, number>;
  }

  flag(field: string, otherwise: boolean): boolean {
    const value = this.#raw[field] ?? otherwise;
    return typeof value === "boolean" ? value : this.fail(field, "true or false");
  }

  dropout(field: string): number {
    return this.number(field, 0, (p) => p >= 0 && p < 1, "a number of at least 0 and below 1");
  }

  bias(adapted: string): BiasMode {
    const value = this.#raw["bias"] ?? "none";
    if (value === "none" || value === "all") return value;
    return value === adapted ? "adapted" : this.fail("bias", `"none", "all" or "${adapted}"`);
  }

  /** `trainable_token_indices`: a list of ids, or one list by the name of a module. */
  tokens(): PeftLoraConfig["tokens"] {
    const field = "trainable_token_indices";
    const value = this.#raw[field] ?? null;
    if (value === null || (Array.isArray(value) && value.length === 0)) return null;
    const named = Array.isArray(value) ? [[null, value] as const] : Object.entries(value);
    const isId = (one: unknown): boolean => Number.isSafeInteger(one) && (one as number) >= 0;
    const [module, ids] = named[0] ?? [null, null];
    if (named.length !== 1 || !Array.isArray(ids) || ids.length === 0 || !ids.every(isId))
      return this.fail(field, "a list of different ids of tokens, or { NAME: such a list } for one embedding"); // prettier-ignore
    return { module, ids: ids as number[] };
  }

  targets(): PeftTargets {
    const modules = this.#modules("target_modules");
    const layers = this.#layers();
    const layersPattern = this.strings("layers_pattern");
    if (layersPattern.length > 0 && layers === null)
      this.fail("layers_pattern", "null, since layers_to_transform is not given");
    if (layers !== null && modules !== null && !Array.isArray(modules))
      this.fail("layers_to_transform", "null, since target_modules is not a list");
    const excluded = this.#modules("exclude_modules");
    if (excluded === "all-linear") this.fail("exclude_modules", "a list or a pattern");
    return {
      modules,
      exclude: excluded,
      layers,
      layersPattern,
      modulesToSave: this.strings("modules_to_save"),
      parameters: this.#parameters(),
    };
  }

  /** peft adapts the parameters of experts by plain LoRA alone, and ranks of single ones would need its paths of modules. */
  #parameters(): readonly string[] {
    const names = this.strings("target_parameters");
    if (names.length === 0) return names;
    for (const flag of ["use_dora", "lora_bias"]) this.only(flag, [false, null]);
    this.only("lora_dropout", [0, null]);
    for (const field of ["rank_pattern", "alpha_pattern"])
      if (Object.keys((this.#raw[field] as object | null) ?? {}).length > 0)
        this.fail(field, "no patterns, since target_parameters is given");
    if (this.#layers() !== null) this.fail("layers_to_transform", "null, since target_parameters is given");
    return names;
  }

  #modules(field: string): readonly string[] | Pattern | "all-linear" | null {
    const value = this.#raw[field] ?? null;
    if (value === null) return null;
    if (typeof value === "string")
      return value.toLowerCase() === "all-linear" ? "all-linear" : this.#pattern(field, value);
    return this.strings(field);
  }

  strings(field: string): readonly string[] {
    const value = this.#raw[field] ?? [];
    const list: unknown = typeof value === "string" ? [value] : value;
    if (!Array.isArray(list) || !list.every((one) => typeof one === "string"))
      return this.fail(field, "a list of names");
    return list;
  }

  #layers(): readonly number[] | null {
    const value = this.#raw["layers_to_transform"] ?? null;
    const list: unknown = typeof value === "number" ? [value] : value;
    if (list === null || (Array.isArray(list) && list.length === 0)) return null;
    if (!Array.isArray(list) || !list.every((one) => Number.isInteger(one) && (one as number) >= 0))
      return this.fail("layers_to_transform", "a layer number, or a list of them");
    return list as number[];
  }

  #pattern(field: string, source: string): Pattern {
    return this.#checked(field, () => compilePattern(source, this.#work));
  }

  #checked<T>(field: string, compile: () => T): T {
    try {
      return compile();
    } catch (cause) {
      throw new FormatError({
        file: this.#file,
        tensor: field,
        found: (cause as Error).message,
        expected: "a regular expression that this library reads",
      });
    }
  }
}
