/** Training that starts from an adapter, whichever program wrote it: the model first answers as with it, then is trained on. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import * as optim from "@tiedlora/nn/optim";
import {
  type Adapter,
  adapt,
  adaptersOf,
  adapterFiles,
  type AdapterFormat,
  initFromFiles,
  type InitOptions,
  type Method,
  methods,
} from "tiedlora";
import { asFiles, collect, randomize } from "../../tiedlora/test/support/files.ts";
import { type Result, tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";
import { logitsOf, lossOf, tinyLlama } from "../../tiedlora/test/support/tiny.ts";

suite("initFromFiles", () => {
  const cases: readonly (readonly [string, Method, AdapterFormat, readonly string[]])[] = [
    ["our own", methods.tl6({ rank: 2, dropout: 0.1 }), "native", ["A", "B", "u", "v"]],
    ["our own, of which only vectors are trained", methods.vera({ rank: 2 }), "native", ["u", "v"]],
    ["our own DoRA", methods.dora({ rank: 2 }), "native", ["A", "B", "m"]],
    ["peft's LoRA", methods.lora({ rank: 2, alpha: 6 }), "peft-lora", ["A", "B"]],
    ["peft's LoRA, made of a tied adapter", methods.tl5({ rank: 2 }), "peft-lora", ["A", "B"]],
    ["peft's VeRA", methods.vera({ rank: 2, target: ["q_proj", "o_proj"] }), "peft-vera", ["u", "v"]],
    ["mlx-lm's", methods.lora({ rank: 2 }), "mlx", ["A", "B"]],
  ];

  for (const [what, method, format, trained] of cases) {
    test(`${what}: the model answers as before, what was trained is trained, and nothing else moves`, async () => {
      const source = tinyLlama();
      const saved = randomize(await adapt(source, method), 5, 0.1);
      const expected = await logitsOf(source);
      const files = asFiles(await collect(adapterFiles(saved, format)));

      const model = tinyLlama();
      const adapter = await initFromFiles(model, files, { seed: 7, dropout: 0.3 });
      assert.deepEqual(adaptersOf(model).names, ["default"]);
      assert.deepEqual([adapter.seed, adapter.method.dropout, adapter.active], [7, 0.3, true]);
      const logits = await logitsOf(model);
      const worst = Math.max(...logits.map((x, i) => Math.abs(x - expected[i]!)));
      assert.ok(worst < 1e-4, `${worst}`);

      const values = async (one: Adapter): Promise<Map<string, Float32Array>> =>
        new Map(await Promise.all([...one.stateDict()].map(async ([path, p]) => [path, (await p.data()).slice() as Float32Array] as const))); // prettier-ignore
      const before = await values(adapter);
      const lossBefore = await lossOf(model).item();
      const optimizer = optim.adamW(adapter.parameters(), { lr: 0.003 });
      adapter.train();
      for (let step = 0; step < 8; step++) optimizer.step(lossOf(model));
      adapter.train(false);
      assert.ok((await lossOf(model).item()) < lossBefore, "it learns");
      const after = await values(adapter);
      for (const [path, old] of before) {
        const moved = old.some((value, i) => value !== after.get(path)![i]);
        assert.equal(moved, trained.includes(path.split(".").at(-1)!.replace(/\d+$/, "")), path);
      }
      // What was trained on can be saved, and started from again.
      const again = tinyLlama();
      await initFromFiles(again, asFiles(await collect(adapterFiles(adapter))));
      assert.ok(Math.abs((await lossOf(again).item()) - (await lossOf(model).item())) < 1e-6);
      for (const one of [source, model, again]) one.device.close();
    });
  }

  test("settings that the adapter has otherwise are refused, with both said, and the model stays as it was", async () => {
    const source = tinyLlama();
    const files = asFiles(await collect(adapterFiles(randomize(adapt(source, methods.lora({ rank: 2, alpha: 4 }))), "peft-lora"))); // prettier-ignore
    const model = tinyLlama();
    const before = await logitsOf(model);
    const refused = (expect: InitOptions["expect"], message: RegExp): Promise<void> =>
      assert.rejects(initFromFiles(model, files, { expect: expect! }), message);
    await refused(
      { rank: 8 },
      /does not have the settings that were given: it has rank 2, and 8 is given\. Leave/,
    );
    await refused({ alpha: 2 }, /it has alpha 4, and 2 is given/);
    await refused({ method: "tl6" }, /it has method lora, and tl6 is given/);
    await refused({ method: "rslora" }, /it has method lora, and rslora is given/);
    await refused({ target: ["q_proj"] }, /it adapts model\.layers\.0\.self_attn\.k_proj, .* and 6 others, and the target that is given is .*q_proj/); // prettier-ignore
    await refused(
      { rank: 8, method: "dora" },
      /it has method lora, and dora is given; it has rank 2, and 8 is given/,
    );
    assert.deepEqual([adaptersOf(model).names, await logitsOf(model)], [[], before]);
    await initFromFiles(model, files, { expect: { rank: 2, alpha: 4, method: "lora", target: "qkv" } });
    await assert.rejects(initFromFiles(model, files), /"default"/);
    await initFromFiles(model, files, { replace: true });
    assert.deepEqual(adaptersOf(model).names, ["default"]);
    for (const one of [source, model]) one.device.close();
  });
});

suite("train --init-from", async () => {
  const folder = temporary();
  const at = (...names: string[]): string => join(folder, ...names);
  await writeModel(at("model"));
  writeExamples(at("train.jsonl"));
  const base = ["--model", at("model"), "--backend", "reference"];
  const train = (out: string, ...more: string[]): Promise<Result> =>
    tiedlora(
      "train",
      ...base,
      "--data",
      at("train.jsonl"),
      "--seq",
      "32",
      "--batch",
      "2",
      "--out",
      at(out),
      ...more,
    );
  const done = async (result: Promise<Result>): Promise<Result> => {
    const all = await result;
    assert.equal(all.code, 0, all.info);
    return all;
  };
  const lossOfAdapter = async (directory: string): Promise<number> => {
    const flags = ["--adapter", directory, "--data", at("train.jsonl"), "--seq", "32", "--json"];
    return (JSON.parse((await done(tiedlora("eval", ...base, ...flags))).out) as { loss: number }).loss;
  };
  await done(train("first", ..."--method lora --rank 2 --alpha 4 --steps 12 --lr 0.02".split(" ")));
  await done(
    tiedlora("export", ...base, "--adapter", at("first"), "--format", "peft-lora", "--out", at("peft")),
  );
  const digest = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

  for (const source of ["first", "peft"]) {
    test(`goes on from ${source}: by flag and by YAML, to the same bits, and says in run.yaml where it comes from`, async () => {
      const more = [
        "--steps",
        "6",
        "--lr",
        "0.02",
        "--warmup",
        "0",
        "--schedule",
        "constant",
        "--save-every",
        "3",
      ];
      const { info } = await done(train(`on-${source}`, "--init-from", at(source), ...more));
      assert.match(info, new RegExp(`starting from the adapter in .*${source}\n.*lora rank 2`));
      assert.ok(
        (await lossOfAdapter(at(`on-${source}`))) < (await lossOfAdapter(at(source))),
        "it learned on",
      );
      const yaml = readFileSync(at(`on-${source}`, "run.yaml"), "utf8");
      assert.match(yaml, new RegExp(`^init-from: ${at(source)}$`, "m"));
      assert.match(
        yaml,
        new RegExp(`^init-digest: ${digest(at(source, "adapter_model.safetensors"))}$`, "m"),
      );
      assert.match(yaml, /^method: lora$/m);
      assert.match(yaml, /^alpha: 4$/m);
      const config = JSON.parse(readFileSync(at(`on-${source}`, "adapter_config.json"), "utf8")) as {
        r: number;
      };
      assert.equal(config.r, 2);

      writeFileSync(at("on.yaml"), yaml.replace(/^out: .*$/m, `out: ${at(`yaml-${source}`)}`));
      await done(tiedlora("train", "--config", at("on.yaml")));
      const bits = (out: string): Buffer =>
        readFileSync(at(out, "checkpoints/step-00000006/optimizer.safetensors"));
      assert.ok(bits(`yaml-${source}`).equals(bits(`on-${source}`)));

      // Where it came from is not needed to go on.
      await done(train(`cut-${source}`, "--init-from", at(source), ...more, "--steps", "3"));
      renameSync(at(source), at("moved"));
      try {
        const resumed = await done(
          tiedlora("train", "--resume", "--out", at(`cut-${source}`), "--steps", "6"),
        );
        assert.match(resumed.info, /going on after step 3 of 6/);
      } finally {
        renameSync(at("moved"), at(source));
      }
      assert.ok(bits(`cut-${source}`).equals(bits(`on-${source}`)));
    });
  }

  test("gives prompts as the adapter's training gave them", async () => {
    await done(train("arrow", "--steps", "1", "--rank", "2", "--separator", " -> "));
    await done(train("on-arrow", "--steps", "1", "--init-from", at("arrow")));
    assert.match(readFileSync(at("on-arrow/run.yaml"), "utf8"), /^separator: " -> "$/m);
    await done(train("other", "--steps", "1", "--init-from", at("arrow"), "--separator", "="));
    assert.match(readFileSync(at("other/run.yaml"), "utf8"), /^separator: "?="?$/m);
  });

  test("refuses what contradicts the adapter, and leaves nothing behind", async () => {
    for (const [flags, code, message] of [
      [
        ["--init-from", at("first"), "--rank", "4"],
        2,
        /--init-from: the adapter in .* it has rank 2, and 4 is given/,
      ],
      [["--init-from", at("first"), "--method", "tl6"], 2, /it has method lora, and tl6 is given/],
      [
        ["--init-from", at("first"), "--target", "o_proj"],
        2,
        /it adapts .*, and the target that is given is .*o_proj/,
      ],
      [["--init-from", at("nowhere")], 2, /--init-from .*nowhere: there is no such directory/],
      [["--init-from", at("model")], 1, /found no adapter_config\.json; expected an adapter/],
      [
        ["--init-from", at("first"), "--init-digest", "0".repeat(64)],
        1,
        /the SHA-256 of its tensors is [0-9a-f]{64}; expected 0{64}/,
      ],
      [["--init-digest", "0".repeat(64)], 2, /--init-digest is given without --init-from/],
      [["--init-from", ""], 2, /expected a path/],
    ] as const) {
      const result = await train("refused", "--steps", "1", ...flags);
      assert.equal(result.code, code, result.info);
      assert.match(result.info, message);
      assert.throws(() => readFileSync(at("refused/run.yaml")));
    }
    const own = await train("first", "--init-from", at("first"), "--steps", "1", "--restart");
    assert.deepEqual([own.code, /that is --out; give another directory/.test(own.info)], [2, true], own.info);
    const valid = await tiedlora(
      "validate",
      "--config",
      at("first/run.yaml"),
      "--init-from",
      at("first"),
      "--out",
      at("x"),
    );
    assert.match(valid.info, /valid: the adapter in .*first, 12 steps/);
  });
});
