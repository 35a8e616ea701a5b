import assert from "node:assert/strict";
import { suite, test } from "node:test";
import {
  bytesSource,
  decodeF32,
  FormatError,
  openSafetensors,
  reference,
  type Tensor,
  writeSafetensors,
  zeros,
} from "@tiedlora/core";
import { parametersToWrite } from "../src/files/native.ts";
import { adapt, loadAdapterFiles, type Method, methods, mlxFiles, type PlainMethod } from "../src/index.ts";
import { asFiles, collect, type Contents, randomize, withConfig } from "./support/files.ts";
import { distance, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

const q = (options: Parameters<typeof methods.lora>[0] = {}): PlainMethod =>
  methods.lora({ rank: 2, alpha: 3, target: ["q_proj", "up_proj"], ...options });

async function saved(method: Method, make = tinyLlama): Promise<{ files: Contents; logits: number[] }> {
  const model = make();
  const adapter = randomize(await adapt(model, method), 5, 0.3);
  return { files: await collect(mlxFiles(adapter)), logits: await logitsOf(model) };
}
const configOf = (files: Contents): Record<string, unknown> =>
  JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
const opened = (files: Contents): ReturnType<typeof openSafetensors> =>
  openSafetensors(bytesSource(files.get("adapters.safetensors") as Uint8Array, "adapters.safetensors"));

suite("mlx-lm's adapters", () => {
  const cases: [string, Method, typeof tinyLlama?][] = [
    ["LoRA", q()],
    ["TL6 of a fused group", methods.tl6({ rank: 2, alpha: 5 })],
    ["DoRA", methods.dora({ rank: 2, alpha: 3, target: ["q_proj", "up_proj"] })],
    ["some layers, ranks and scales only", q({ target: { modules: ["q_proj", "up_proj"], layers: [1] }, rankPattern: { up_proj: 3 }, alphaPattern: { q_proj: 7 } })], // prettier-ignore
    ["GPT-2", methods.tl6({ rank: 2 }), tinyGpt2],
  ];
  for (const [name, method, make = tinyLlama] of cases) {
    test(`written and read back, the answers are the same: ${name}`, async () => {
      const { files, logits } = await saved(method, make);
      const model = make();
      const base = await logitsOf(model);
      await loadAdapterFiles(model, asFiles(files));
      assert.ok(distance(logits, base) > 1e-2);
      assert.ok(distance(await logitsOf(model), logits) < 2e-5);
    });
  }

  test("hold a and b transposed, under the names that mlx-lm has, and its config", async () => {
    const model = tinyLlama(reference());
    const adapter = randomize(adapt(model, q()));
    const files = await collect(mlxFiles(adapter, { base_model: "tiny" }));
    const file = await opened(files);
    const name = "model.layers.1.mlp.up_proj";
    assert.deepEqual(file.entries.get(`${name}.lora_a`)?.shape, [8, 2]);
    assert.deepEqual(file.entries.get(`${name}.lora_b`)?.shape, [2, 12]);
    const a = decodeF32(await file.read(`${name}.lora_a`), "file", name);
    const A = await adapter.parameter(`${name}.A`).data();
    assert.deepEqual([a[0], a[1], a[2]], [A[0], A[8], A[1]]);
    assert.equal(file.metadata.get("format"), "mlx");
    assert.deepEqual(configOf(files), {
      fine_tune_type: "lora",
      lora_parameters: { dropout: 0, keys: ["self_attn.q_proj", "mlp.up_proj"], rank: 2, scale: 1.5 },
      model: "tiny",
      num_layers: 3,
    });
  });

  test("name the last layers; what lies between and is not adapted gets an update of zero", async () => {
    const { files } = await saved(q({ target: { modules: ["q_proj"], layers: [1] } }));
    assert.equal(configOf(files)["num_layers"], 2);
    const file = await opened(files);
    const b = decodeF32(await file.read("model.layers.2.self_attn.q_proj.lora_b"), "file", "b");
    assert.ok(b.length > 0 && b.every((value) => value === 0));
  });

  test("of GPT-2 call its trunk model", async () => {
    const { files } = await saved(methods.lora({ rank: 2 }), tinyGpt2);
    assert.ok((await opened(files)).entries.has("model.h.0.attn.c_attn.lora_a"));
  });

  test("cannot hold everything, and the error says what can", async () => {
    const refused = (method: PlainMethod, message: RegExp, make = tinyLlama): void => {
      const adapter = adapt(make(), method);
      assert.throws(() => mlxFiles(adapter), { message });
    };
    refused(q({ target: ["lm_head"] }), /inside layers only, and lm_head is none; export as peft-lora/);
    refused(q({ modulesToSave: ["norm"] }), /no model\.norm\.weight.*peft-lora/);
    refused(methods.loraBias({ rank: 2 }), /no bias on B/, tinyGpt2);
  });

  test("that do not fit are refused, and the model stays as it was", async () => {
    const { files } = await saved(q());
    const refuses = async (contents: Contents, message: RegExp, model = tinyLlama()): Promise<void> => {
      await assert.rejects(loadAdapterFiles(model, asFiles(contents)), (error) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        return true;
      });
      assert.ok(model.linears().every(([, linear]) => linear.adapter === null));
    };
    await refuses(files, /a tensor without a place in this model/, tinyGpt2());
    await refuses(
      files,
      /lora_a.*shape \[8, 2\]; expected \[16, 2\]/,
      tinyLlama(reference(), { hidden_size: 16 }),
    );
    await refuses(withConfig(files, (c) => (c["fine_tune_type"] = "full")), /"full"; expected "lora" or "dora"/); // prettier-ignore
    await refuses(
      withConfig(files, (c) => (c["fine_tune_type"] = "dora")),
      /\.m.*found nothing/,
    );
    await refuses(
      withConfig(files, (c) => (c["lora_parameters"] = { rank: 2 })),
      /scale nothing/,
    );
    await refuses(new Map([...files].slice(1)), /no adapters\.safetensors/);
    const ranks = [2, 3, 2, 2];
    const uneven = ["q_proj", "k_proj", "v_proj", "o_proj"].flatMap((name, i): [string, Tensor][] => [
      [`model.layers.0.self_attn.${name}.lora_a`, zeros([16, ranks[i]!])],
      [`model.layers.0.self_attn.${name}.lora_b`, zeros([ranks[i]!, 8])],
    ]);
    const tensors = await collect([
      ["adapters.safetensors", writeSafetensors(parametersToWrite(uneven), [])],
    ]);
    await refuses(new Map([...files, ...tensors]), /k_proj.*found rank 3; expected rank 2/);
  });
});
