/** The modules of a model with their paths and sizes, from its config alone. No weights are allocated. */
import { isRecord } from "@tiedlora/core";
import { refuse } from "@tiedlora/core/arguments";
import { ARCHITECTURES } from "./architectures.ts";
import type { DecoderConfig } from "./config.ts";

type ModuleKind = "embedding" | "linear" | "norm" | "router";

/** A module of a decoder, known from its config alone. */
export interface ModuleSpec {
  /** As in Hugging Face's models: "model.layers.0.self_attn.q_proj". */
  readonly path: string;
  readonly kind: ModuleKind;
  /** linear, router: features in and out. embedding: rows and columns. norm: both its length. */
  readonly in: number;
  readonly out: number;
  readonly bias: boolean;
}

/** A parameter of a decoder, known from its config alone. */
export interface ParameterSpec {
  readonly path: string;
  readonly shape: readonly number[];
}

/** The modules of an MLP, by function. */
interface MlpSpec {
  readonly gate: ModuleSpec | null;
  readonly up: ModuleSpec;
  readonly down: ModuleSpec;
}

/** The modules of one layer, by function. */
interface LayerSpec {
  readonly attentionNorm: ModuleSpec | null;
  /** One fused linear, or three. */
  readonly qkv: readonly ModuleSpec[];
  readonly qNorm: ModuleSpec | null;
  readonly kNorm: ModuleSpec | null;
  readonly out: ModuleSpec;
  readonly attentionPostNorm: ModuleSpec | null;
  readonly mlpNorm: ModuleSpec | null;
  /** Chooses among `mlps` for each token; null if there is only one. */
  readonly router: ModuleSpec | null;
  readonly mlps: readonly MlpSpec[];
  readonly mlpPostNorm: ModuleSpec | null;
}

export interface DecoderSpec {
  readonly embed: ModuleSpec;
  readonly position: ModuleSpec | null;
  readonly layers: readonly LayerSpec[];
  readonly finalNorm: ModuleSpec;
  /** With tied embeddings its weight is that of `embed`. */
  readonly head: ModuleSpec;
}

export function decoderSpec(config: DecoderConfig): DecoderSpec {
  const { names } = ARCHITECTURES[config.modelType];
  const { hidden, vocab, maxPositions } = config;
  const at = (name: string): string => `${names.base}.${name}`;
  const embedding = (path: string, rows: number): ModuleSpec => ({
    path,
    kind: "embedding",
    in: rows,
    out: hidden,
    bias: false,
  });
  return {
    embed: embedding(at(names.embed), vocab),
    position: names.position === null ? null : embedding(at(names.position), maxPositions),
    layers: Array.from({ length: config.layers }, (_, i) => layerSpec(config, i, at(`${names.layers}.${i}`))),
    finalNorm: normSpec(at(names.finalNorm), hidden, config.normBias),
    head: { path: names.head, kind: "linear", in: hidden, out: vocab, bias: false },
  };
}

function normSpec(path: string, length: number, bias: boolean): ModuleSpec {
  return { path, kind: "norm", in: length, out: length, bias };
}

function layerSpec(config: DecoderConfig, index: number, prefix: string): LayerSpec {
  const { names } = ARCHITECTURES[config.modelType];
  const { hidden, headDim, heads, kvHeads, normBias, qkvBias, outBias, experts } = config;
  const at = (name: string): string => `${prefix}.${name}`;
  const linear = (name: string, from: number, to: number, bias: boolean): ModuleSpec =>
    linearSpec(at(name), from, to, bias);
  const widths = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
  const fused = names.qkv.length === 1;
  const norm = (name: string | null): ModuleSpec | null =>
    name === null ? null : normSpec(at(name), hidden, normBias);
  const qkNorm = (name: string, width: number): ModuleSpec | null =>
    config.qkNorm === "none" ? null : normSpec(at(name), config.qkNorm === "head" ? headDim : width, false);
  return {
    attentionNorm: norm(names.attentionNorm),
    qkv: names.qkv.map((name, i) =>
      linear(name, hidden, fused ? widths.reduce((a, b) => a + b) : widths[i]!, qkvBias),
    ),
    qNorm: qkNorm(names.qNorm, widths[0]!),
    kNorm: qkNorm(names.kNorm, widths[1]!),
    out: linear(names.out, heads * headDim, hidden, outBias),
    attentionPostNorm: norm(names.attentionPostNorm),
    mlpNorm: norm(names.mlpNorm),
    ...(experts?.layers[index]
      ? {
          router: { ...linear(names.router, hidden, experts.count, false), kind: "router" },
          mlps: Array.from({ length: experts.count }, (_, e) =>
            mlpSpec(config, (name) => at(`${names.experts}.${e}.${lastName(name)}`), experts.width),
          ),
        }
      : { router: null, mlps: [mlpSpec(config, at, config.intermediate)] }),
    mlpPostNorm: norm(names.mlpPostNorm),
  };
}

const linearSpec = (path: string, from: number, to: number, bias: boolean): ModuleSpec => ({
  path,
  kind: "linear",
  in: from,
  out: to,
  bias,
});

const lastName = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

function mlpSpec(config: DecoderConfig, at: (name: string) => string, width: number): MlpSpec {
  const { names } = ARCHITECTURES[config.modelType];
  const { mlp, hidden, mlpBias } = config;
  return {
    gate: mlp === "gated" ? linearSpec(at(names.gate), hidden, width, mlpBias) : null,
    up: linearSpec(at(names.up), hidden, mlp === "fused" ? 2 * width : width, mlpBias),
    down: linearSpec(at(names.down), width, hidden, mlpBias),
  };
}

/** All modules that hold parameters, in the order of computation. */
export function moduleSpecs(config: DecoderConfig): ModuleSpec[] {
  const { embed, position, layers, finalNorm, head } = decoderSpec(config);
  const inside = layers.flatMap(({ mlps, mlpPostNorm, ...layer }): (ModuleSpec | null)[] => [
    ...Object.values(layer).flat(),
    ...mlps.flatMap(({ gate, up, down }) => [gate, up, down]),
    mlpPostNorm,
  ]);
  return [embed, position, ...inside, finalNorm, head].filter((spec) => spec !== null);
}

/** The parameters of a module. */
export function moduleParameters(config: DecoderConfig, spec: ModuleSpec): ParameterSpec[] {
  const bias = spec.bias ? [{ path: `${spec.path}.bias`, shape: [spec.out] }] : [];
  return [{ path: `${spec.path}.weight`, shape: weightShape(config, spec) }, ...bias];
}

function weightShape(config: DecoderConfig, spec: ModuleSpec): number[] {
  if (spec.kind === "norm") return [spec.in];
  return spec.kind === "embedding" || storedInOut(config, spec) ? [spec.in, spec.out] : [spec.out, spec.in];
}

/** Whether a linear's weight is stored as [in, out]: those of GPT-2, except its output embedding. */
export function storedInOut(config: DecoderConfig, spec: ModuleSpec): boolean {
  const { names, linear } = ARCHITECTURES[config.modelType];
  return linear === "conv1d" && spec.kind === "linear" && spec.path !== names.head;
}

/** Every parameter that a file holds: a tied output embedding is not among them. */
export function parameterSpecs(config: DecoderConfig): ParameterSpec[] {
  const { head } = ARCHITECTURES[config.modelType].names;
  return moduleSpecs(config)
    .filter(({ path }) => !(config.tied && path === head))
    .flatMap((spec) => moduleParameters(config, spec));
}

function checkConfig(what: string, config: DecoderConfig): void {
  if (!isRecord(config) || !Object.hasOwn(config, "modelType"))
    refuse(what, config, "config of a decoder", 'one, e.g. preset("llama-2-7b")');
}

/** The number of parameters of a model; tied parameters count once. */
export function countParameters(config: DecoderConfig): number {
  checkConfig("countParameters", config);
  return parameterSpecs(config).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** The linear modules, which adapters can target. */
export function linearSpecs(config: DecoderConfig): ModuleSpec[] {
  checkConfig("linearSpecs", config);
  return moduleSpecs(config).filter(({ kind }) => kind === "linear");
}

/**
 * The modules that adapters can target, with their linears also the embeddings that are read and the norms, in the order of computation. A
 * norm is described as a linear map of the number 1 to its scale: `in` is 1.
 */
export function adaptableSpecs(config: DecoderConfig): ModuleSpec[] {
  checkConfig("adaptableSpecs", config);
  return moduleSpecs(config).flatMap((spec) => {
    if (spec.kind === "router") return [];
    return spec.kind === "norm" ? [{ ...spec, in: 1 }] : [spec];
  });
}
