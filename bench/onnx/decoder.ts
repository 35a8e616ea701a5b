/**
 * A decoder of ours as an ONNX model: a Llama or a GPT-2 with a cache of keys and values that is written in place. It uses the operators
 * that ONNX Runtime has for decoders (GroupQueryAttention with rotation, SimplifiedLayerNormalization), as its own exporters do.
 *
 * Inputs: ids [1, length] int64; positions [1, length] int64 (GPT-2); last [1] int32, the number of keys less one; keys int32, their
 * number; for each layer past_key_i and past_value_i [1, kvHeads, slots, width]. Outputs: next [1, 1] int64, the likeliest token after the
 * last one; logits [1, vocab]; present_key_i and present_value_i, for which the caller gives the tensors of the past.
 */
import type { Tensor } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";

const [FLOAT, INT32, INT64] = [1, 6, 7];
const [ATTRIBUTE_FLOAT, ATTRIBUTE_INT] = [1, 2];
const MICROSOFT = "com.microsoft";

interface Options {
  readonly domain?: string;
  readonly ints?: Readonly<Record<string, number>>;
  readonly floats?: Readonly<Record<string, number>>;
}

/** Collects nodes and initializers of a graph. */
class Graph {
  readonly nodes: object[] = [];
  readonly initializers: object[] = [];
  #names = 0;

  /** Adds a node and returns the name of its first output. */
  node(
    op: string,
    inputs: readonly string[],
    { domain = "", ints = {}, floats = {} }: Options = {},
    outputs: readonly string[] = [`${op}_${this.#names++}`],
  ): string {
    const attribute = [
      ...Object.entries(ints).map(([name, i]) => ({ name, i, type: ATTRIBUTE_INT })),
      ...Object.entries(floats).map(([name, f]) => ({ name, f, type: ATTRIBUTE_FLOAT })),
    ];
    this.nodes.push({ opType: op, domain, input: inputs, output: outputs, attribute });
    return outputs[0]!;
  }

  constant(name: string, dims: readonly number[], data: Float32Array | BigInt64Array): string {
    const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.initializers.push({ name, dims, dataType: data instanceof Float32Array ? FLOAT : INT64, rawData });
    return name;
  }
}

/** The width that heads have in ONNX: GroupQueryAttention takes multiples of 16 alone, so that others are padded with zeros. */
export const paddedWidth = (headDim: number): number => Math.ceil(headDim / 16) * 16;

/** A weight [outputs, inputs] of a Llama as the second factor of a product, [inputs, outputs], with padded heads. */
function llamaFactor(
  graph: Graph,
  name: string,
  data: Float32Array,
  [outputs, inputs]: readonly [number, number],
  headDim: number,
): string {
  const width = paddedWidth(headDim);
  const places = (count: number): { size: number; at: (i: number) => number } => {
    const at = (i: number): number => {
      const [head, within] = [Math.floor(i / headDim), i % headDim];
      // A rotation turns the first half of a head with the second, so each is padded.
      return head * width + (within < headDim / 2 ? within : within - headDim / 2 + width / 2);
    };
    return { size: (count / headDim) * width, at };
  };
  const same = (size: number): { size: number; at: (i: number) => number } => ({ size, at: (i) => i });
  const out = /[qkv]_proj$/.test(name) ? places(outputs) : same(outputs);
  const into = name.endsWith("o_proj") ? places(inputs) : same(inputs);
  const factor = new Float32Array(out.size * into.size);
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++) factor[into.at(i) * out.size + out.at(o)] = data[o * inputs + i]!;
  return graph.constant(name, [into.size, out.size], factor);
}

/** Adds nodes of one model to a graph, with its weights. */
class Exported {
  readonly graph = new Graph();
  readonly #config: Decoder["config"];
  readonly #weights: ReadonlyMap<string, Tensor>;
  /** Llama's weights are [outputs, inputs], GPT-2's [inputs, outputs] with biases. */
  readonly llama: boolean;

  constructor(model: Decoder) {
    this.#config = model.config;
    this.#weights = new Map(model.namedParameters());
    this.llama = model.config.modelType === "llama";
  }

  async #read(name: string): Promise<{ shape: readonly number[]; data: Float32Array }> {
    const parameter = this.#weights.get(name)!;
    return { shape: parameter.shape, data: (await parameter.data()) as Float32Array };
  }

  async weight(name: string): Promise<string> {
    const { shape, data } = await this.#read(name);
    return this.graph.constant(name, shape, data);
  }

  /** x times a weight, plus its bias. */
  async linear(x: string, name: string): Promise<string> {
    const { shape, data } = await this.#read(`${name}.weight`);
    if (!this.llama) {
      const product = this.graph.node("MatMul", [x, this.graph.constant(name, shape, data)]);
      return this.graph.node("Add", [product, await this.weight(`${name}.bias`)]);
    }
    const [rows, columns] = shape as [number, number];
    return this.graph.node("MatMul", [x, llamaFactor(this.graph, name, data, [rows, columns], this.#config.headDim)]); // prettier-ignore
  }

  async norm(x: string, name: string): Promise<string> {
    const options = { ints: { axis: -1 }, floats: { epsilon: this.#config.normEps } };
    const scale = await this.weight(`${name}.weight`);
    if (this.llama) return this.graph.node("SimplifiedLayerNormalization", [x, scale], options);
    return this.graph.node("LayerNormalization", [x, scale, await this.weight(`${name}.bias`)], options);
  }

  /** Self-attention of layer `i`, which adds to its cache. */
  async attention(x: string, at: string, i: number, rotations: readonly string[]): Promise<string> {
    const { heads, kvHeads, headDim } = this.#config;
    // GroupQueryAttention takes q, k and v in one tensor if key and value are missing.
    const qkv = this.llama
      ? [await this.linear(x, `${at}.self_attn.q_proj`), await this.linear(x, `${at}.self_attn.k_proj`), await this.linear(x, `${at}.self_attn.v_proj`)]
      : [await this.linear(x, `${at}.attn.c_attn`), "", ""]; // prettier-ignore
    const attended = this.graph.node(
      "GroupQueryAttention",
      [...qkv, `past_key_${i}`, `past_value_${i}`, "last", "keys", ...rotations],
      {
        domain: MICROSOFT,
        ints: {
          num_heads: heads,
          kv_num_heads: kvHeads,
          do_rotary: this.llama ? 1 : 0,
          rotary_interleaved: 0,
        },
        floats: { scale: 1 / Math.sqrt(headDim) },
      },
      [`attended_${i}`, `present_key_${i}`, `present_value_${i}`],
    );
    return this.linear(attended, this.llama ? `${at}.self_attn.o_proj` : `${at}.attn.c_proj`);
  }

  async mlp(x: string, at: string): Promise<string> {
    const { graph } = this;
    if (!this.llama) {
      const inner = graph.node("FastGelu", [await this.linear(x, `${at}.mlp.c_fc`)], { domain: MICROSOFT });
      return this.linear(inner, `${at}.mlp.c_proj`);
    }
    const gate = await this.linear(x, `${at}.mlp.gate_proj`);
    const silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate])]);
    const inner = graph.node("Mul", [silu, await this.linear(x, `${at}.mlp.up_proj`)]);
    return this.linear(inner, `${at}.mlp.down_proj`);
  }
}

/** The nodes of the model, with a cache of `slots` places. */
async function nodesOf(model: Decoder, slots: number): Promise<Graph> {
  const exported = new Exported(model);
  const { graph, llama } = exported;
  const { layers, headDim, rope } = model.config;
  const embedding = await exported.weight(llama ? "model.embed_tokens.weight" : "transformer.wte.weight");
  let x = graph.node("Gather", [embedding, "ids"]);
  if (!llama) x = graph.node("Add", [x, graph.node("Gather", [await exported.weight("transformer.wpe.weight"), "positions"])]); // prettier-ignore
  const tables = rope === null ? [] : rotation(slots, headDim, rope.theta);
  const rotations = tables.map((table, i) => graph.constant(`rotation_${i}`, [slots, paddedWidth(headDim) / 2], table)); // prettier-ignore
  for (let i = 0; i < layers; i++) {
    const at = llama ? `model.layers.${i}` : `transformer.h.${i}`;
    const [first, second] = llama ? ["input_layernorm", "post_attention_layernorm"] : ["ln_1", "ln_2"];
    const attended = await exported.attention(await exported.norm(x, `${at}.${first}`), at, i, rotations);
    x = graph.node("Add", [x, attended]);
    x = graph.node("Add", [x, await exported.mlp(await exported.norm(x, `${at}.${second}`), at)]);
  }
  const end = graph.constant("end", [], BigInt64Array.of(-1n));
  const lastRow = graph.node("Gather", [x, end], { ints: { axis: 1 } });
  const state = await exported.norm(lastRow, llama ? "model.norm" : "transformer.ln_f");
  graph.node("Gemm", [state, embedding], { ints: { transB: 1 } }, ["logits"]);
  graph.node("ArgMax", ["logits"], { ints: { axis: 1, keepdims: 1 } }, ["next"]);
  return graph;
}

type Dimensions = readonly (number | string)[];

/** An input or output of the graph; dimensions that are names may vary. */
function info(name: string, elemType: number, dims: Dimensions): object {
  const dim = dims.map((one) => (typeof one === "string" ? { dimParam: one } : { dimValue: one }));
  return { name, type: { tensorType: { elemType, shape: { dim } } } };
}

/** The model with a cache of `slots` places, as a message ModelProto. Throws if it is neither a Llama nor a GPT-2. */
export async function onnxModel(model: Decoder, slots: number): Promise<object> {
  const { modelType, layers, kvHeads, headDim, vocab } = model.config;
  if (modelType !== "llama" && modelType !== "gpt2")
    throw new Error(`no export to ONNX for a model of type ${modelType}; expected llama or gpt2`);
  const { nodes, initializers } = await nodesOf(model, slots);
  const kinds = Array.from({ length: layers }, (_, i) => [`key_${i}`, `value_${i}`]).flat();
  const cache = (which: string): object[] =>
    kinds.map((kind) => info(`${which}_${kind}`, FLOAT, [1, kvHeads, slots, paddedWidth(headDim)]));
  return {
    irVersion: 10,
    producerName: "tiedlora",
    opsetImport: [
      { domain: "", version: 17 },
      { domain: MICROSOFT, version: 1 },
    ],
    graph: {
      name: "decoder",
      node: nodes,
      initializer: initializers,
      input: [
        info("ids", INT64, [1, "length"]),
        ...(modelType === "gpt2" ? [info("positions", INT64, [1, "length"])] : []),
        info("last", INT32, [1]),
        info("keys", INT32, []),
        ...cache("past"),
      ],
      output: [info("next", INT64, [1, 1]), info("logits", FLOAT, [1, vocab]), ...cache("present")],
    },
  };
}

/** Cosines and sines of the angles by which pairs of a head are turned at each position, with padded heads. */
function rotation(slots: number, headDim: number, theta: number): readonly [Float32Array, Float32Array] {
  const half = paddedWidth(headDim) / 2;
  const [cosines, sines] = [new Float32Array(slots * half), new Float32Array(slots * half)];
  for (let position = 0; position < slots; position++)
    for (let i = 0; i < headDim / 2; i++) {
      const angle = position / theta ** ((2 * i) / headDim);
      cosines[position * half + i] = Math.cos(angle);
      sines[position * half + i] = Math.sin(angle);
    }
  return [cosines, sines];
}
