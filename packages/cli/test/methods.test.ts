/** Methods on the command line: every preset on a real model, starts, options of single methods, and ranks that fall. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { cpu } from "@tiedlora/backend-cpu";
import { type Device, openSafetensors, reference } from "@tiedlora/core";
import { fileSource } from "@tiedlora/core/node";
import { loadModel, loadPretrained, type Pretrained } from "@tiedlora/models/node";
import {
  adapt,
  adapterOptimizer,
  adaptersOf,
  encodeExample,
  type EncodedExample,
  METHOD_NAMES,
  type StartName,
  STARTS,
} from "tiedlora";
import { loadAdapter } from "tiedlora/node";
import { SHARED, without } from "../../../test/support/shared.ts";
import { run } from "../src/run/run.ts";
import { methodOf } from "../src/method-settings.ts";
import { type Result, tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const path = (...names: string[]): string => join(folder, ...names);

const losses = (out: string): number[] =>
  readFileSync(path(out, "logs/metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .flatMap((line) => (JSON.parse(line) as { valid_loss?: number }).valid_loss ?? []);

suite("every method", { skip: without("models/stories260K") }, () => {
  const text = Array.from(
    { length: 4 },
    (_, i) => `Tim had ${["a red", "a blue", "an old", "a new"][i]} hat.`,
  );
  let device: Device;
  let base: Pretrained;
  let examples: EncodedExample[] = [];

  before(async () => {
    device = await cpu();
    base = await loadPretrained(join(SHARED, "models/stories260K"), { device });
    examples = text.map((completion) => encodeExample({ prompt: "", completion, line: 1 }, base.tokenizer, { maxLength: 33 })!); // prettier-ignore
  });
  after(() => device.close());

  // As `train` does it, but without the samples before and after, and on two layers, which compile faster than all.
  for (const method of METHOD_NAMES) {
    test(`${method} learns stories260K a text, and its file loads to the same logits`, async () => {
      const { model, padId } = base;
      const isWhole = ["prompt-tuning", "norm-tuning", "full"].includes(method); // of the model, not of layers
      const where = isWhole ? { target: "qkv" as const } : method === "trained-tokens" ? { target: "qkv" as const, methodOptions: { tokens: [261, 311] } } : { target: "qkv" as const, layers: [3, 4] }; // prettier-ignore
      const adapter = await adapt(model, methodOf({ method, rank: 2, dropout: 0, ...where }), { seed: 1 });
      const logits = async (): Promise<unknown> => model.forward([examples[0]!.tokens]).data();
      try {
        const directory = path(`preset-${method}`);
        const optimizer = adapterOptimizer(adapter, { steps: 3, schedule: "constant", warmup: 0 });
        const losses: number[] = [];
        await run({ model, adapter, optimizer, directory, examples, fingerprint: "texts", steps: 3, batch: 4, maxLength: 33, seed: 1, padId, evalEvery: 3, saveEvery: 3, log: [], resume: false, onStep: ({ loss }) => void losses.push(loss) }); // prettier-ignore
        assert.ok(losses[2]! < losses[0]!, `${losses[0]} to ${losses[2]}`);
        const trained = await logits();
        adaptersOf(model).unload();
        await loadAdapter(model, directory);
        assert.deepEqual(await logits(), trained);
      } finally {
        adaptersOf(model).unload();
      }
    });
  }
});

suite("starts and options of methods", () => {
  const model = path("model");
  const wide = path("wide");
  const data = path("train.jsonl");
  const train = (out: string, ...rest: string[]): Promise<Result> =>
    tiedlora("train", "--model", model, "--data", data, "--valid", data, "--out", path(out), "--batch", "2", "--seq", "24", "--rank", "2", "--backend", "reference", ...rest); // prettier-ignore
  const config = (out: string): { method: string; recipe: { options: Record<string, unknown> } } =>
    JSON.parse(readFileSync(path(out, "adapter_config.json"), "utf8")) as ReturnType<typeof config>;
  const provenance = async (out: string): Promise<Record<string, string>> => {
    const source = await fileSource(path(out, "adapter_model.safetensors"));
    const { metadata } = await openSafetensors(source);
    await source.close?.();
    return JSON.parse(metadata.get("tiedlora.provenance")!) as Record<string, string>;
  };

  before(async () => {
    await writeModel(model);
    await writeModel(wide, { hidden_size: 64, intermediate_size: 64 }); // for quantization, which takes rows in groups
    writeExamples(data, 6);
  });

  test("--init begins at the model's loss, is named by the files, and resumes to the same bits", async () => {
    const starts = { pissa: ["--stream"], eva: ["--init-examples", "3"], loftq: ["--quantize", "int8", "--model", wide, "--backend", "cpu"] }; // prettier-ignore
    for (const [init, more] of Object.entries(starts)) {
      const flags = ["--init", init, "--save-every", "1", "--schedule", "constant", "--warmup", "0", ...more];
      const whole = await train(`${init}-whole`, ...flags, "--steps", "2");
      assert.equal(whole.code, 0, whole.info);
      assert.match(whole.info, new RegExp(`A and B start as ${init} says`));
      assert.equal(config(`${init}-whole`).method, STARTS[init as StartName].subtracted ? "lora-residual" : "lora"); // prettier-ignore
      assert.equal((await provenance(`${init}-whole`))["init"], init);
      if (init !== "pissa") continue;
      const part = await train(`${init}-part`, ...flags, "--steps", "1");
      assert.equal(part.code, 0, part.info);
      const rest = await tiedlora("train", "--resume", "--out", path(`${init}-part`), "--steps", "2");
      assert.equal(rest.code, 0, rest.info);
      const tensors = (out: string): Buffer => readFileSync(path(out, "adapter_model.safetensors"));
      assert.deepEqual(tensors(`${init}-part`), tensors(`${init}-whole`), init);
    }
    // neither start changes the model
    const [one, other] = [losses("pissa-whole")[0]!, losses("eva-whole")[0]!];
    assert.ok(Math.abs(one - other) < 1e-5, `${one} and ${other}`);
  });

  test("a start that cannot be is refused by name, before anything is read", async () => {
    const cases: [RegExp, string[]][] = [
      [
        /--init: the start pissa is not zero: lora would change.*lora-residual/s,
        ["--init", "pissa", "--method", "lora"],
      ],
      [
        /--init: the start eva is of an A .* which tl6 has not; choose lora/s,
        ["--init", "eva", "--method", "tl6"],
      ],
      [/--init corda observes the model on data.*leave --stream out/s, ["--init", "corda", "--stream"]],
      [/--init loftq starts from what --quantize loses/, ["--init", "loftq"]],
      [/--init-examples is given without --init/, ["--init-examples", "3"]],
      [
        /--init-examples is given, and --init olora observes no data/,
        ["--init", "olora", "--init-examples", "3"],
      ],
      [/--init eva observes examples, and --shuffle-buffer/, ["--init", "eva", "--shuffle-buffer", "9"]],
      [/--init lora-ga observes .* --loss dpo has preferences/, ["--init", "lora-ga", "--loss", "dpo"]],
    ];
    for (const [message, flags] of cases) {
      const { code, info } = await train("refused", ...flags, "--steps", "1");
      assert.match(info, message);
      assert.equal(code, 2);
    }
  });

  test("--method full trains everything, and writes a model that loads as any other, tied as it was", async () => {
    const tied = path("tied");
    await writeModel(tied, { tie_word_embeddings: true });
    const { code, info } = await train("full", "--model", tied, "--method", "full", "--steps", "2");
    assert.equal(code, 0, info);
    assert.match(info, /full on .* trainable parameters in \d+ of the model's own/);
    const device = reference();
    const [base, whole] = [await loadModel(tied, { device }), await loadModel(path("full", "model"), { device })]; // prettier-ignore
    assert.equal(whole.tied, true);
    const own = new Map(base.namedParameters());
    for (const [name, parameter] of whole.namedParameters())
      assert.notDeepEqual(await parameter.data(), await own.get(name)!.data(), name);
    await loadAdapter(base, path("full"));
    assert.equal(base.tied, true);
    const ids = [[3, 14, 15, 9, 26]];
    assert.deepEqual(await whole.forward(ids).data(), await base.forward(ids).data());
    const refused = await train("refused", "--model", wide, "--method", "full", "--quantize", "int8");
    assert.match(refused.info, /full fine-tuning trains all weights, and those of this model are quantized/);
    assert.equal(refused.code, 1);
  });

  test("a model of few positions trains on long prompts: what it would say is shown as far as there is room", async () => {
    const gpt2 = path("gpt2");
    await writeModel(gpt2, { model_type: "gpt2", n_embd: 8, n_layer: 1, n_head: 2, n_positions: 64 });
    const long = path("long.jsonl");
    writeFileSync(long, JSON.stringify({ prompt: "x".repeat(40), completion: "yes" }));
    const { code, info } = await tiedlora("train", "--out", path("long"), "--model", gpt2, "--data", long, "--seq", "50", "--method", "prompt-tuning", "--steps", "1"); // prettier-ignore
    assert.equal(code, 0, info);
    assert.match(info, /after training: x{40}/);
  });

  test("settings that this model has nothing for are said to have no effect", async () => {
    const { code, info } = await train("nothing", "--bias", "all", "--quantize", "int8", "--backend", "cpu", "--steps", "1"); // prettier-ignore
    assert.equal(code, 0, info);
    assert.match(info, /note:.* --bias all: the model has no such biases/);
    assert.match(info, /note:.* --quantize int8: no row of this model's matrices can be divided into groups/);
  });

  test("--method-options reach the declaration, from flags and from YAML, and mistakes are named", async () => {
    const valid = (...flags: string[]): Promise<Result> =>
      tiedlora("validate", "--model", model, "--data", data, "--out", path("valid"), "--seq", "24", "--rank", "2", ...flags); // prettier-ignore
    const nola = await valid("--method", "nola", "--method-options", "bases=3,scaling=sqrt-rank");
    assert.match(nola.info, /nola rank 2, 84 trainable parameters in 14 modules/); // 14 modules, 2 sides, 3 numbers
    writeFileSync(path("vb.yaml"), "method: vb-lora\nmethod-options: { top-k: 3, vectors: 7, length: 4 }\n");
    const vb = await valid("--config", path("vb.yaml"));
    assert.match(vb.info, /vb-lora rank 2/);
    const other = await valid("--config", path("vb.yaml"), "--method-options", "vectors=9,length=4");
    assert.notEqual(/[\d,]+ trainable/.exec(other.info)?.[0], /[\d,]+ trainable/.exec(vb.info)?.[0]);
    for (const [message, ...flags] of [
      [/--method-options: nola has no option "base"; did you mean "bases"/, "nola", "base=3"],
      [/--method-options: lora has no option "bases"; it has tied, keep, scaling/, "lora", "bases=3"],
      [/--method-options: bases .*expected a whole number of at least 1/, "nola", "bases=few"],
      [/--method-options: .*pool/, "rasa", "pool=9"],
      [/options with values, as bases=16/, "nola", "bases"],
    ] as const) {
      const { code, info } = await train("refused", "--method", flags[0], "--method-options", flags[1], "--steps", "1"); // prettier-ignore
      assert.match(info, message);
      assert.equal(code, 2);
    }
    const { out } = await tiedlora("params", "--model", "llama-2-7b", "--method", "nola", "--rank", "8", "--method-options", "bases=16", "--target", "qkv"); // prettier-ignore
    assert.match(out, /1,024 trainable/);
  });

  test("--rank-schedule prunes ada-lora, across a resume too, and only steps at its end count as the best", async () => {
    const flags = ["--method", "ada-lora", "--rank", "4", "--rank-schedule", "rank=1,warmup=1,final=2,every=1", "--eval-every", "1", "--save-every", "1"]; // prettier-ignore
    const whole = await train("ada", ...flags, "--steps", "6");
    assert.equal(whole.code, 0, whole.info);
    const zeros = async (out: string): Promise<[number, number]> => {
      const source = await fileSource(path(out, "adapter_model.safetensors"));
      const file = await openSafetensors(source);
      const names = [...file.entries.keys()].filter((name) => name.endsWith(".lambda"));
      let [kept, all] = [0, 0];
      for (const name of names) {
        const { bytes } = await file.read(name);
        const values = new Float32Array(bytes.slice().buffer);
        kept += values.filter((x) => x !== 0).length;
        all += values.length;
      }
      await source.close?.();
      return [kept, all];
    };
    const [kept, all] = await zeros("ada");
    assert.equal(4 * kept, all);
    assert.match(whole.info, /the best step is [456],/);
    for (const [message, ...more] of [
      [
        /--rank-schedule ends at rank 9, above its start, --rank 2; give a lower one/,
        "--method",
        "ada-lora",
        "--rank-schedule",
        "rank=9",
      ],
      [
        /--rank-schedule is given, and --method is lora; it is for ada-lora/,
        "--method",
        "lora",
        "--rank-schedule",
        "rank=1",
      ],
      [
        /--rank-schedule: there is no "end"; give rank, warmup, final, every/,
        "--method",
        "ada-lora",
        "--rank-schedule",
        "rank=1,end=2",
      ],
      [
        /--rank-schedule: 5 steps before pruning and 0 after it leave none of 1/,
        "--method",
        "ada-lora",
        "--rank-schedule",
        "rank=1,warmup=5,final=0",
      ],
    ] as const) {
      const { code, info } = await train("refused", "--steps", "1", ...more);
      assert.match(info, message);
      assert.equal(code, 2);
    }
  });
});
