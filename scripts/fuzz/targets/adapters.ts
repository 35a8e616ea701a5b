/** Adapters of every format on a small model. A refused adapter must leave the model unchanged. */
import { key, memoryFiles, normalArray, reference } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import {
  adapt,
  type AdapterFormat,
  adapterFiles,
  adaptersOf,
  loadAdapterFiles,
  type Method,
  methods,
  tiedLora,
} from "tiedlora";
import { collect } from "../../../packages/tiedlora/test/support/files.ts";
import { tinyGpt2, tinyLlama } from "../../../packages/tiedlora/test/support/tiny.ts";
import type { Random } from "../random.ts";
import { type CaseFiles, sound, type Target, utf8 } from "../target.ts";

const QV = { rank: 3, alpha: 5, target: ["q_proj", "v_proj"] };
const PATTERNS = {
  rankPattern: { q_proj: 2, "^model.layers.0.self_attn.v_proj$": 1 },
  alphaPattern: { "layers.[12].*": 7 },
};

const NATIVE: readonly Method[] = [
  methods.lora({ ...QV, rankPattern: { q_proj: 2 } }),
  methods.tl6({ rank: 2, alpha: 4 }),
  methods.vera({ rank: 3, target: "all-linear" }),
  methods.dora(QV),
  methods.loraBias(QV),
  methods.loraXs({ rank: 2 }),
  methods.vbLora({ rank: 2, vectors: 8, length: 4 }),
  tiedLora({
    trained: ["v", "B"],
    tied: { A: "model", B: { blocks: 2 } },
    rank: 2,
    target: /.*self_attn\.[qv]_proj/,
  }),
  methods.lora({
    rank: 2,
    target: { modules: ["o_proj"], layers: [0, 2], exclude: ["q_proj"] },
    modulesToSave: ["norm"],
    bias: "all",
  }),
];
const PEFT_LORA: readonly Method[] = [
  methods.lora(QV),
  methods.rslora({ ...QV, ...PATTERNS }),
  methods.dora(QV),
  methods.loraBias(QV),
  methods.lora({ ...QV, modulesToSave: ["norm", "lm_head"] }),
];
const PEFT_VERA: readonly Method[] = [
  methods.vera({ rank: 3, target: "all-linear" }),
  methods.tl6({ rank: 2 }),
];
const MLX: readonly Method[] = [methods.lora(QV), methods.dora(QV)];
const GPT2: readonly Method[] = [
  methods.lora({ rank: 2, target: ["c_attn", "wte"], bias: "adapted" }),
  methods.tl5({ rank: 2 }),
];

/** Patterns on which a backtracking engine would not finish, or that would fill the memory. */
const HOSTILE = [
  "(a+)+$",
  "(.*)*x",
  `${"(?=".repeat(40)}a${".*)".repeat(40)}`,
  "((?=.*a).*){1000}",
  `${"(?=(.*".repeat(9)}q_proj${")*)".repeat(9)}`,
  "(a{1000}){1000}",
  ".*\\.(q|v)_proj",
  "((((((((((x{9}){9}){9}){9}){9}){9}){9}){9}){9}){9})",
  "(?!(?!(?!q)))",
  "[^",
];

async function filesOf(make: () => Decoder, method: Method, format: AdapterFormat): Promise<CaseFiles> {
  const adapter = await adapt(make(), method);
  for (const [path, parameter] of adapter.stateDict())
    parameter.set(normalArray(key(5).fold(path), parameter.size, 0, 0.5));
  const contents = await collect(adapterFiles(adapter, format, { base_model: "tiny" }));
  return new Map(
    [...contents].map(([name, content]) => [name, typeof content === "string" ? utf8(content) : content]),
  );
}

/** The files of a VeRA adapter whose projections are drawn instead of stored. */
async function withoutProjections(): Promise<CaseFiles> {
  const device = reference();
  const method = methods.vera({ rank: 4, target: ["q_proj"] });
  const files = await filesOf(() => tinyLlama(device), method, "peft-vera");
  const { openSafetensors, bytesSource, serialize } = await import("@tiedlora/core");
  const tensors = await openSafetensors(bytesSource(files.get("adapter_model.safetensors")!));
  const kept = [...tensors.entries].filter(([name]) => !/vera_[AB]$/.test(name));
  const written = kept.map(([name, { dtype, shape }]) => ({
    name,
    dtype,
    shape,
    bytes: async () => (await tensors.read(name)).bytes,
  }));
  const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json"))) as object;
  files.set(
    "adapter_config.json",
    utf8(JSON.stringify({ ...config, save_projection: false, projection_prng_key: 7 })),
  );
  files.set("adapter_model.safetensors", await serialize(written));
  return files;
}

function target(seeds: readonly (readonly [model: "llama" | "gpt2", CaseFiles])[]): Target {
  const device = reference();
  const models = { llama: tinyLlama(device, { attention_bias: true }), gpt2: tinyGpt2(device) };
  const before = { llama: paths(models.llama), gpt2: paths(models.gpt2) };
  const of = (files: CaseFiles): "llama" | "gpt2" => (files.has("gpt2") ? "gpt2" : "llama");
  return {
    seed(random: Random) {
      const [model, files] = random.pick(seeds);
      return new Map([...files, ...(model === "gpt2" ? [["gpt2", new Uint8Array()] as const] : [])]);
    },
    async read(files) {
      const model = models[of(files)];
      try {
        const adapter = await loadAdapterFiles(model, memoryFiles(files, "adapter"));
        const { total, trainable } = adapter.count();
        sound(
          Number.isSafeInteger(total) && trainable <= total,
          `it has ${trainable} of ${total} parameters`,
        );
        for (const { scale } of adapter.plan.sites)
          sound(Number.isFinite(Math.fround(scale)) && Math.fround(scale) !== 0, `it is scaled by ${scale}`);
      } finally {
        for (const name of adaptersOf(model).names) adaptersOf(model).delete(name);
        const after = paths(model);
        const expected = before[of(files)];
        sound(after === expected, "the model is another one afterwards");
      }
    },
    words: [
      ...HOSTILE,
      "all-linear",
      "qkv",
      "VERA",
      "LORA",
      "TIED_LORA",
      "(custom)",
      "lora_only",
      "model",
      "sqrt-rank",
      "q_proj",
      "norm",
    ],
  };
}

const paths = (model: Decoder): string => [...adaptersOf(model).ownParameters()].map(([path, { shape }]) => `${path} ${shape.join("x")}`).join(" "); // prettier-ignore

async function seedsOf(
  list: readonly Method[],
  format: AdapterFormat,
  gpt2: readonly Method[] = [],
): Promise<(readonly ["llama" | "gpt2", CaseFiles])[]> {
  const device = reference();
  const llama = (): Decoder => tinyLlama(device, { attention_bias: true });
  return [
    ...(await Promise.all(
      list.map(async (method) => ["llama", await filesOf(llama, method, format)] as const),
    )),
    ...(await Promise.all(
      gpt2.map(async (method) => ["gpt2", await filesOf(() => tinyGpt2(device), method, format)] as const),
    )),
  ];
}

export const adaptersNative = async (): Promise<Target> => target(await seedsOf(NATIVE, "native", GPT2));
export const adaptersLora = async (): Promise<Target> => target(await seedsOf(PEFT_LORA, "peft-lora", GPT2));
export const adaptersVera = async (): Promise<Target> =>
  target([...(await seedsOf(PEFT_VERA, "peft-vera")), ["llama", await withoutProjections()]]);
export const adaptersMlx = async (): Promise<Target> => target(await seedsOf(MLX, "mlx"));
