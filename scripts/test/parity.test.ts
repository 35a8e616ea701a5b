/** Tests the script that compares logits with those of Python: on files written by Python, and on planted differences. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import type { Device } from "@tiedlora/core";
import { configFrom, createModel } from "@tiedlora/models";
import { loadModel, saveModel } from "@tiedlora/models/node";
import { adapt, methods } from "tiedlora";
import { saveAdapter } from "tiedlora/node";
import { SHARED, without } from "../../test/support/shared.ts";
import { type Check, compareAll, passed } from "../parity.ts";

let device: Device;
before(async () => {
  device = await cpu();
});
after(() => device.close());

async function run(directory: string): Promise<Map<string, Check>> {
  const checks = new Map<string, Check>();
  for await (const check of compareAll(directory, device)) checks.set(check.name, check);
  return checks;
}

const fixtures = "fixtures/peft";
test(
  "models and adapters written by Python answer as they do there",
  { skip: without(fixtures) },
  async () => {
    const checks = await run(join(SHARED, fixtures));
    assert.equal(checks.size, 31);
    for (const check of checks.values()) assert.ok(passed(check), JSON.stringify(check));
  },
);

suite("parity", () => {
  const IDS = [[1, 2, 3, 4]];
  let directory: string;
  let logits: { base: number[]; half: number[]; lora: number[] };
  const expect = async (change = 0): Promise<void> => {
    const lora = logits.lora.map((value, i) => (i === 5 ? value + change : value));
    const json = {
      input_ids: IDS,
      base_logits: logits.base,
      base_logits_bf16_weights_f32_math: logits.half,
      logits_lora: lora,
    };
    await writeFile(join(directory, "tiny/expected.json"), JSON.stringify(json));
  };

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "parity-"));
    const config = configFrom({
      model_type: "gpt2",
      vocab_size: 11,
      n_embd: 8,
      n_layer: 2,
      n_head: 2,
      n_positions: 8,
      initializer_range: 0.3,
    });
    const model = createModel(config, { device, seed: 1 });
    await saveModel(model, join(directory, "tiny"));
    await saveModel(model, join(directory, "tiny-bf16"), { dtype: "bf16" });
    const base = [...(await model.forward(IDS).data())];
    const adapter = adapt(model, methods.lora({ rank: 2 }));
    for (const parameter of adapter.parameters())
      parameter.set(Float32Array.from({ length: parameter.size }, (_, i) => Math.sin(i)));
    await saveAdapter(adapter, join(directory, "tiny-adapter-lora"), {}, "peft-lora");
    const lora = [...(await model.forward(IDS).data())];
    const half = await loadModel(join(directory, "tiny-bf16"), { device });
    logits = { base, lora, half: [...(await half.forward(IDS).data())] };
  });
  after(() => rm(directory, { recursive: true }));

  test("holds where nothing differs, and allows half precision more", async () => {
    await expect();
    const checks = await run(directory);
    assert.deepEqual([...checks.keys()], ["tiny", "tiny-adapter-lora", "tiny-bf16"]);
    assert.ok([...checks.values()].every(passed));
    assert.deepEqual([checks.get("tiny")!.limit, checks.get("tiny-bf16")!.limit], [2e-5, 1e-4]);
  });

  test("fails for one logit that is off by more than the limit", async () => {
    await expect(1e-5);
    assert.ok(passed((await run(directory)).get("tiny-adapter-lora")!));
    await expect(1e-4);
    const checks = await run(directory);
    assert.ok(!passed(checks.get("tiny-adapter-lora")!));
    assert.ok(passed(checks.get("tiny")!));
  });

  test("compares adapters of peft's other kinds", async () => {
    const target = ["c_fc"];
    const kinds = [
      methods.ia3({ target }),
      methods.adaLora({ target, rank: 2 }),
      methods.loha({ target, rank: 2 }),
      methods.hra({ target, rank: 2 }),
      methods.oft({ target, block: 4 }),
      methods.vbLora({ target, rank: 2, vectors: 5, length: 4 }),
    ];
    const expected: Record<string, unknown> = { input_ids: IDS, base_logits: logits.base };
    const model = await loadModel(join(directory, "tiny"), { device });
    for (const method of kinds) {
      const adapter = adapt(model, method);
      for (const parameter of adapter.parameters())
        parameter.set(Float32Array.from({ length: parameter.size }, (_, i) => 0.3 * Math.sin(i + 1)));
      await saveAdapter(adapter, join(directory, `tiny-adapter-${method.name}`), {}, "peft");
      expected[`logits_${method.name}`] = [...(await model.forward(IDS).data())];
      adapter.detach();
    }
    await writeFile(join(directory, "tiny/expected.json"), JSON.stringify(expected));
    const checks = await run(directory);
    for (const { name } of kinds) {
      assert.ok(
        passed(checks.get(`tiny-adapter-${name}`)!),
        JSON.stringify(checks.get(`tiny-adapter-${name}`)),
      );
      await rm(join(directory, `tiny-adapter-${name}`), { recursive: true });
    }
  });

  test("fails for what cannot be loaded or compared, says why, and goes on", async () => {
    await expect();
    const extra = join(directory, "tiny-adapter-other");
    await mkdir(extra);
    await writeFile(join(extra, "adapter_config.json"), '{"peft_type":"BONE"}');
    const broken = (await run(directory)).get("tiny-adapter-other")!;
    assert.ok(!passed(broken));
    assert.match(broken.problem!, /peft_type.*"BONE"/);
    assert.equal((await run(directory)).size, 4);
    await rm(extra, { recursive: true });
  });
});
