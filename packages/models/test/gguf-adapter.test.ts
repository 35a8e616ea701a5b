/** Adapters for llama.cpp: the file is read back against the published format, by a reader that is written down here a second time. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { configFrom } from "../src/config.ts";
import { ggufAdapter, type LoraUpdate } from "../src/gguf/adapter.ts";
import { interleave } from "./support/gguf.ts";
import { randoms } from "./support/quantized.ts";

const LLAMA = {
  model_type: "llama",
  vocab_size: 12,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  tie_word_embeddings: false,
};

interface Read {
  readonly metadata: ReadonlyMap<string, string | number>;
  readonly tensors: ReadonlyMap<string, { readonly ne: readonly number[]; readonly values: Float32Array }>;
}

/** gguf_init_from_file of ggml, for version 3, the types of values that an adapter has, and tensors in F32. */
function read(bytes: Uint8Array): Read {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const u32 = (): number => view.getUint32((at += 4) - 4, true);
  const u64 = (): number => Number(view.getBigUint64((at += 8) - 8, true));
  const text = (): string => {
    const length = u64();
    return new TextDecoder().decode(bytes.subarray(at, (at += length)));
  };
  const value = (): string | number => {
    const type = u32();
    if (type === 8) return text();
    if (type === 6) return view.getFloat32((at += 4) - 4, true);
    assert.equal(type, 4, "a type of values that is not read here");
    return u32();
  };
  assert.equal(new TextDecoder().decode(bytes.subarray(0, 4)), "GGUF");
  at = 4;
  assert.equal(u32(), 3);
  const [tensors, pairs] = [u64(), u64()];
  const metadata = new Map(Array.from({ length: pairs }, () => [text(), value()] as const));
  const infos = Array.from({ length: tensors }, () => {
    const name = text();
    const ne = Array.from({ length: u32() }, u64);
    assert.equal(u32(), 0, "F32");
    return { name, ne, offset: u64() };
  });
  const data = Math.ceil(at / 32) * 32;
  const found = infos.map(({ name, ne, offset }) => {
    assert.equal(offset % 32, 0);
    const start = data + offset;
    const values = Float32Array.from({ length: ne.reduce((a, b) => a * b, 1) }, (_, i) => view.getFloat32(start + 4 * i, true)); // prettier-ignore
    return [name, { ne, values }] as const;
  });
  return { metadata, tensors: new Map(found) };
}

const update = (path: string, out: number, inputs: number, rank: number, scale: number): LoraUpdate => ({
  path,
  rank,
  scale,
  A: randoms(out + rank, rank * inputs),
  B: randoms(inputs + 7 * rank, out * rank),
});

/** factor · B A as rows, in float64. */
function product({ A, B, rank }: Pick<LoraUpdate, "A" | "B" | "rank">, factor: number): number[][] {
  const inputs = A.length / rank;
  return Array.from({ length: B.length / rank }, (_, o) =>
    Array.from({ length: inputs }, (_, i) => {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += B[o * rank + r]! * A[r * inputs + i]!;
      return factor * sum;
    }),
  );
}

/** What llama.cpp adds to a matrix: alpha / rank · B A, where the rank is ne[0] of B. */
function added({ metadata, tensors }: Read, matrix: string): number[][] {
  const [a, b] = [tensors.get(`${matrix}.lora_a`)!, tensors.get(`${matrix}.lora_b`)!];
  assert.equal(a.ne[1], b.ne[0]);
  const rank = b.ne[0]!;
  return product({ A: a.values, B: b.values, rank }, (metadata.get("adapter.lora.alpha") as number) / rank);
}

function near(actual: number[][], expected: number[][], what: string): void {
  assert.equal(actual.length, expected.length);
  for (const [r, row] of expected.entries())
    for (const [c, x] of row.entries())
      assert.ok(Math.abs(actual[r]![c]! - x) < 1e-5, `${what} [${r}, ${c}]`);
}

describe("an adapter for llama.cpp", () => {
  const layer = "model.layers.1";
  const updates = [
    update(`${layer}.self_attn.q_proj`, 16, 16, 3, 2),
    update(`${layer}.self_attn.k_proj`, 8, 16, 3, 2),
    update(`${layer}.self_attn.v_proj`, 8, 16, 3, 2),
    update(`${layer}.self_attn.o_proj`, 16, 16, 3, 2),
    update(`${layer}.mlp.gate_proj`, 24, 16, 2, 0.7),
    update(`${layer}.mlp.down_proj`, 16, 24, 3, 2),
    update("lm_head", 12, 16, 3, 2),
  ];

  test("has the published metadata, names and shapes, and adds the updates, queries and keys in llama.cpp's order", () => {
    const file = read(ggufAdapter(configFrom(LLAMA), updates, "mine"));
    for (const [key, value] of [
      ["general.architecture", "llama"],
      ["general.type", "adapter"],
      ["adapter.type", "lora"],
      ["adapter.lora.alpha", 6],
    ] as const)
      assert.equal(file.metadata.get(key), value, key);
    const names = ["blk.1.attn_q", "blk.1.attn_k", "blk.1.attn_v", "blk.1.attn_output", "blk.1.ffn_gate", "blk.1.ffn_down", "output"]; // prettier-ignore
    assert.deepEqual(
      [...file.tensors.keys()],
      names.flatMap((name) => [`${name}.weight.lora_a`, `${name}.weight.lora_b`]),
    );
    assert.deepEqual(file.tensors.get("blk.1.attn_k.weight.lora_a")!.ne, [16, 3]);
    assert.deepEqual(file.tensors.get("blk.1.attn_k.weight.lora_b")!.ne, [3, 8]);
    for (const [i, one] of updates.entries()) {
      const heads = [4, 2][i];
      const own = product(one, one.scale);
      near(added(file, `${names[i]}.weight`), heads === undefined ? own : interleave(own, heads), one.path);
    }
  });

  test("other architectures keep the order of rows; an embedding's first factor has a row for each token", () => {
    const [q] = updates;
    const embedding = update("model.embed_tokens", 16, 12, 2, 1);
    const config = configFrom({ ...LLAMA, model_type: "qwen2", tie_word_embeddings: true });
    const file = read(ggufAdapter(config, [q!, embedding], "mine"));
    assert.equal(file.metadata.get("general.architecture"), "qwen2");
    near(added(file, "blk.1.attn_q.weight"), product(q!, 2), "q");
    const [a, b] = ["a", "b"].map((which) => file.tensors.get(`token_embd.weight.lora_${which}`)!);
    assert.deepEqual([a!.ne, b!.ne], [[2, 12], [2, 16]]); // prettier-ignore
    for (let t = 0; t < 12; t++) for (let r = 0; r < 2; r++) assert.equal(a!.values[t * 2 + r], embedding.A[r * 12 + t]); // prettier-ignore
  });

  test("refuses what a file cannot hold, with the remedy", () => {
    const gpt2 = configFrom({ model_type: "gpt2", vocab_size: 12, n_embd: 16, n_layer: 1, n_head: 4 });
    assert.throws(() => ggufAdapter(gpt2, updates, "x"), /gpt2[^]*expected one of llama[^]*/i);
    const tied = configFrom({ ...LLAMA, tie_word_embeddings: true });
    assert.throws(() => ggufAdapter(tied, updates, "x"), /lm_head[^]*stores once[^]*tiedlora merge/);
    const odd = { ...updates[0]!, path: "model.layers.0.self_attn.rotary" };
    assert.throws(() => ggufAdapter(configFrom(LLAMA), [odd], "x"), /rotary[^]*does not have by itself/);
  });
});
