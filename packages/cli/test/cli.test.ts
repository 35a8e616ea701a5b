import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { createProgram } from "../src/main.ts";
import { ended, start, tiedlora, type Result } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);
await writeModel(at("model"));
writeExamples(at("train.jsonl"));

/** A small run of the tiny model; `more` overrides. */
const train = (out: string, ...more: string[]): Promise<Result> =>
  tiedlora(
    "train",
    ...(more.includes("--data") ? [] : ["--data", at("train.jsonl")]),
    ...`--model ${at("model")} --out ${at(out)}`.split(" "),
    ..."--steps 3 --batch 2 --seq 32 --rank 2 --lr 0.01 --backend reference".split(" "),
    ...more,
  );

suite("train", () => {
  test("shows a sample before and after, the loss, the speed, the time left, and saves the adapter", async () => {
    const { code, info, out } = await train("plain");
    assert.equal(code, 0, info);
    assert.match(info, /before training: say red0.*after training: say red0/s);
    assert.match(info, /step 2\/3 {2}loss \d\.\d{4} {2}[\d,]+ tokens\/s {2}\d+s left/);
    assert.match(info, /372 trainable parameters in 14 modules \(one A and one B for each of 7 types of module, shared by all layers\)\n/); // prettier-ignore
    assert.equal(out, "", "nothing but results goes to stdout");
    assert.deepEqual(
      ["adapter_config.json", "adapter_model.safetensors", "run.yaml"].map((name) =>
        existsSync(at("plain", name)),
      ),
      [true, true, true],
    );
  });

  test("adapts queries, keys and values alone if asked to, as the paper does", async () => {
    const { code, info } = await train("qkv", "--target", "qkv", "--steps", "1");
    assert.equal(code, 0, info);
    assert.match(info, /84 trainable parameters in 2 modules \(one A and one B for all 2 of them\)\n/);
  });

  test("with --json prints one object a step, and nothing else, to stdout", async () => {
    const { out } = await train("json", "--json");
    const steps = out.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      steps.map(({ step }) => step),
      [1, 2, 3],
    );
    for (const key of [
      "loss",
      "lr",
      "grad_norm",
      "tokens",
      "tokens_per_second",
      "seconds_left",
      "memory_bytes",
      "padding",
    ])
      assert.equal(typeof steps[0]![key], "number", key);
  });

  test("is the same for the same seed, and another for another", async () => {
    const bytes = (out: string): string =>
      readFileSync(at(out, "checkpoints/step-00000003/optimizer.safetensors")).toString("hex");
    await train("seed-a", "--seed", "5");
    await train("seed-b", "--seed", "5");
    await train("seed-c", "--seed", "6");
    assert.equal(bytes("seed-a"), bytes("seed-b"));
    assert.notEqual(bytes("seed-a"), bytes("seed-c"));
  });

  test("counts epochs over the examples", async () => {
    const config = at("epochs.yaml");
    writeFileSync(
      config,
      `model: ${at("model")}\ndata: ${at("train.jsonl")}\nout: ${at("epochs")}\nseq: 32\n`,
    );
    const { code, info } = await tiedlora(
      "validate",
      config,
      "--epochs",
      "2",
      "--batch",
      "5",
      "--accumulate",
      "2",
    );
    // 24 examples are 5 batches, of which the last is smaller; these are 3 steps, of which the last has one batch.
    assert.deepEqual([code, /6 steps of 10 examples/.test(info)], [0, true], info);
    const both = await tiedlora("validate", config, "--epochs", "2", "--steps", "9");
    assert.deepEqual(
      [both.code, both.info],
      [2, "error: --steps and --epochs are both given; give one of them"],
    );
  });

  test("ends with a code of its own when the loss becomes NaN, and writes nothing", async () => {
    const { code, info } = await train("nan", "--lr", "1e30", "--steps", "30", "--warmup", "0");
    assert.equal(code, 3, info);
    assert.match(
      info,
      /error: the loss is (NaN|Infinity) at step \d+: .*model\.layers\.\d\.[\w.]+\.\w .*lower learning rate/,
    );
    assert.ok(!existsSync(at("nan/adapter_model.safetensors")), "no adapter was written");
    assert.ok(!existsSync(at("nan/checkpoints")), "no checkpoint was written");
  });

  test("finds train and valid files in a directory, and trains on chats by the model's template", async () => {
    mkdirSync(at("chats"));
    const chat = (i: number): string =>
      JSON.stringify({ messages: [{ role: "user", content: `q${i}` }, { role: "assistant", content: "yes" }] }); // prettier-ignore
    writeFileSync(at("chats/train.jsonl"), [1, 2, 3].map(chat).join("\n"));
    writeFileSync(at("chats/valid.jsonl"), chat(4));
    const { code, info } = await train("chat-run", "--data", at("chats"), "--eval-every", "2");
    assert.equal(code, 0, info);
    assert.match(info, /3 examples from .*train\.jsonl\n1 examples from .*valid\.jsonl \(held out\)/);
    assert.match(info, /before training: <s>user: q1\nassistant: /);
    assert.match(info, /step 2: validation loss \d\.\d{4}, perplexity/);
  });

  test("packs, accumulates and computes activations again, if asked to", async () => {
    const { code, info } = await train(
      "all",
      ..."--pack --accumulate 2 --checkpointing --schedule linear --log none".split(" "),
    );
    assert.equal(code, 0, info);
  });
});

suite("a file of settings", () => {
  const config = at("config.yaml");
  const validate = (text: string, ...flags: string[]): Promise<Result> => {
    writeFileSync(config, text);
    return tiedlora("validate", config, ...flags);
  };
  const complete = `model: ${at("model")}\ndata: ${at("train.jsonl")}\nout: ${at("x")}\nseq: 32\n`;

  test("overrides the defaults, and flags override it", async () => {
    assert.match((await validate(`${complete}rank: 3\nmethod: tl5\n`)).info, /valid: tl5 rank 3, /);
    assert.match((await validate(`${complete}rank: 3\n`, "--rank", "4")).info, /valid: tl6 rank 4, /);
    assert.match(
      (await validate(`${complete}prompt_column: prompt\ncompletion-column: completion\n`)).info,
      /valid/,
    );
  });

  test("that is wrong is an error with the key, its line and what was meant", async () => {
    for (const [text, message] of [
      ["ranc: 3\n", /config\.yaml, line 5: there is no setting "ranc"; did you mean "rank"\?/],
      [
        "xyzzy: 3\n",
        /line 5: there is no setting "xyzzy"; the settings are model, .*, data, prompt-column, /,
      ],
      ["rank: many\n", /line 5: rank is "many"; expected a whole number of at least 1/],
      ["rank: 2.5\n", /line 5: rank is 2\.5; expected a whole number of at least 1/],
      ["\n# a comment\nlr: -1\n", /line 7: lr is -1; expected a number above 0/],
      ["method: tl7\n", /line 5: method is "tl7"; expected one of .* \(did you mean tl1\?\)/],
      ["log: [jsonl, cvs]\n", /line 5: log is \["jsonl","cvs"\]; expected some of jsonl, csv, tensorboard/],
      ["pack: maybe\n", /line 5: pack is "maybe"; expected true or false/],
      ["target: /(/\n", /line 5: target is .*; expected a regular expression/],
      ["rank: 1\nrank: 2\n", /line 6: the key "rank" twice/],
      ["rank: [1\n", /line \d: not YAML: /],
      ["  - 1\n", /line 4: seq is "32 - 1"; expected a whole number of at least 2/],
    ] as const) {
      const { code, info } = await validate(complete + text);
      assert.equal(code, 2, text);
      assert.match(info, message);
    }
    const list = await validate("- 1\n");
    assert.deepEqual([list.code, /line 1: expected settings/.test(list.info)], [2, true], list.info);
  });

  test("that is not there, or lacks something, says so", async () => {
    const missing = await tiedlora("train", "--config", at("none.yaml"));
    assert.deepEqual(
      [missing.code, /there is no such file; tiedlora init writes one/.test(missing.info)],
      [2, true],
    );
    const { code, info } = await validate(`model: ${at("model")}\n`);
    assert.deepEqual(
      [code, /--data is missing: give it, or data: in .*config\.yaml/.test(info)],
      [2, true],
      info,
    );
  });

  test("is written by init with every setting explained, and is valid as it is", async () => {
    const file = at("init.yaml");
    assert.equal((await tiedlora("init", file)).code, 0);
    const text = readFileSync(file, "utf8");
    for (const key of ["rank: 8", "prompt-column:", "patience:", "log: [jsonl, csv, tensorboard]"])
      assert.ok(text.includes(key), key);
    const again = await tiedlora("init", file);
    assert.deepEqual(
      [again.code, /exists; give another name, or replace it by --force/.test(again.info)],
      [2, true],
    );
    const { code, info } = await tiedlora(
      "validate",
      file,
      "--model",
      at("model"),
      "--data",
      at("train.jsonl"),
      "--seq",
      "32",
    );
    assert.equal(code, 0, info);
  });
});

suite("a mistake", () => {
  const cases: readonly (readonly [what: string, flags: readonly string[], code: number, message: RegExp])[] = [
    ["a wrong path to the model", ["--model", at("modle")], 2, /--model .*modle: there is no such directory; did you mean .*model\?/],
    ["a model of the hub, where it cannot be asked", ["--model", "meta-llama/Llama-3.2-1B"], 1, /meta-llama\/Llama-3\.2-1B: HF_HUB_OFFLINE is set, and the cache .* does not have it/],
    ["a wrong path to the data", ["--data", at("trian.jsonl")], 2, /--data .*trian\.jsonl: there is no such file or directory; did you mean .*train\.jsonl\?/],
    ["a wrong column", ["--completion-column", "answer"], 1, /train\.jsonl, line 1: there is no column "answer"; there are prompt, completion/],
    ["a rank that is too large", ["--rank", "1000"], 2, /rank 1000 is too large for .*k_proj, which is 4 by 8; give at most --rank 4/],
    ["an unknown method", ["--method", "tl7"], 2, /'tl7' is invalid\. expected one of lora, vera, .*did you mean tl1\?/],
    ["an unknown flag", ["--rnak", "3"], 2, /unknown option '--rnak'\n\(Did you mean --rank\?\)/],
    ["bad YAML", ["--config", at("bad.yaml")], 2, /bad\.yaml, line \d: not YAML: /],
    ["an empty file", ["--data", at("empty.jsonl")], 1, /empty\.jsonl: the file is empty/],
    ["a sequence that is too long", ["--seq", "65"], 2, /--seq 65: the model knows 64 positions .*; give at most --seq 64/],
    ["prompts that are too long", ["--seq", "8"], 1, /all 24 prompts are longer than 8 tokens.*--seq/],
    ["no tokenizer", ["--model", at("no-tokenizer")], 1, /found no tokenizer\.json; expected a fast tokenizer\. In Python: AutoTokenizer/],
    ["a model that is no causal decoder", ["--model", at("bert")], 1, /"model_type": found "bert"; expected one of .*llama/],
    ["a target that matches nothing", ["--target", "query"], 2, /no module is called "query"; the model has .*q_proj, k_proj/],
    ["a file in a format that is not read", ["--data", at("data.parquet")], 1, /this kind of data file is unknown; expected a name that ends in \.csv/],
    ["fields that mean nothing", ["--data", at("odd.jsonl")], 1, /the fields are question, answer; expected .*--prompt-column/],
    ["a number that is none", ["--lr", "fast"], 2, /'fast' is invalid\. expected a number above 0\./],
  ]; // prettier-ignore

  test("is said in a way to act on, and leaves nothing behind", async () => {
    writeFileSync(at("bad.yaml"), "rank: 3\nlr: [1\n");
    writeFileSync(at("empty.jsonl"), "");
    writeFileSync(at("data.parquet"), "PAR1");
    writeFileSync(at("odd.jsonl"), '{"question":"a","answer":"b"}\n');
    await writeModel(at("no-tokenizer"));
    rmSync(at("no-tokenizer/tokenizer.json"));
    await writeModel(at("bert"));
    const config = JSON.parse(readFileSync(at("bert/config.json"), "utf8")) as object;
    writeFileSync(at("bert/config.json"), JSON.stringify({ ...config, model_type: "bert" }));
    for (const [what, flags, expected, message] of cases) {
      const { code, info } = await train("mistake", ...flags);
      assert.equal(code, expected, `${what}: ${info}`);
      assert.match(info, message, what);
      assert.ok(!/\n\s+at /.test(info), `${what}: no stack`);
      assert.ok(!existsSync(at("mistake/adapter_model.safetensors")), what);
    }
  });

  test("a rank above the size of a module is noted, not refused", async () => {
    const { code, info } = await train("rank", "--rank", "9", "--steps", "1");
    assert.equal(code, 0, info);
    assert.match(
      info,
      /note: rank 9 is too large for .*: an update cannot have a rank above 4, and more only costs time/,
    );
  });
});

suite("after training,", () => {
  const adapter = at("plain");
  const model = ["--model", at("model"), "--backend", "reference"];

  test("generate continues a prompt, and finds the adapter's model by itself", async () => {
    const flags = ["--prompt", "say", "--max-tokens", "8", "--backend", "reference"];
    const alone = await tiedlora("generate", ...model, ...flags);
    assert.deepEqual([alone.code, alone.out.length > 3], [0, true], JSON.stringify(alone));
    const { code, out, info } = await tiedlora("generate", "--adapter", adapter, ...flags, "--json");
    assert.equal(code, 0, info);
    const { prompt, completion } = JSON.parse(out) as Record<string, string>;
    assert.deepEqual([prompt, completion!.trim().length > 3], ["say", true]);
    const chat = await tiedlora(
      "generate",
      ...model,
      ...flags,
      "--chat",
      "--temperature",
      "1",
      "--seed",
      "3",
    );
    assert.equal(chat.code, 0, chat.info);
    const none = await tiedlora("generate", "--prompt", "x");
    assert.deepEqual(
      [none.code, none.info],
      [2, "error: --model is missing: give a Hugging Face directory, or a name on the hub (owner/name)"],
    );
  });

  test("eval measures loss and perplexity, or a task", async () => {
    const { code, out, info } = await tiedlora(
      "eval",
      ...model,
      ...`--adapter ${adapter} --data ${at("train.jsonl")} --seq 32 --json`.split(" "),
    );
    assert.equal(code, 0, info);
    const { examples, loss, perplexity } = JSON.parse(out) as Record<string, number>;
    assert.equal(examples, 24);
    assert.equal(perplexity, Math.exp(loss!));
    const none = await tiedlora("eval", ...model);
    assert.deepEqual([none.code, /--data is missing/.test(none.info)], [2, true]);
  });

  test("inspect shows tensors, and with the model what is tied", async () => {
    const files = await tiedlora("inspect", adapter);
    assert.match(
      files.out,
      /42 tensors, 372 numbers\n.*model\.layers\.0\.self_attn\.k_proj\.B F32 \[4, 2\]/s,
    );
    const tied = await tiedlora("inspect", adapter, ...model);
    assert.match(tied.out, /B: 7 parameters tied over 14 places, 112 numbers, trained\n/);
    assert.match(tied.out, /tied over 2 places\n {4}= model\.layers\.1\.self_attn\.q_proj\.B/);
    const base = await tiedlora("inspect", at("model"), "--json");
    assert.equal((JSON.parse(base.out) as { layers: number }).layers, 2);
    const wrong = await tiedlora("inspect", folder);
    assert.match(wrong.info, /neither an adapter \(adapter_config\.json\) nor a model \(config\.json\)/);
  });

  test("merge writes a model that answers as model and adapter did", async () => {
    assert.equal((await tiedlora("merge", ...model, "--adapter", adapter, "--out", at("merged"))).code, 0);
    const loss = async (...flags: string[]): Promise<number> => {
      const { out } = await tiedlora("eval", ...flags, "--data", at("train.jsonl"), "--seq", "32", "--json");
      return (JSON.parse(out) as { loss: number }).loss;
    };
    const [merged, apart] = [
      await loss("--model", at("merged"), "--backend", "reference"),
      await loss(...model, "--adapter", adapter),
    ];
    assert.ok(Math.abs(merged - apart) < 1e-5 * apart, `${merged} and ${apart}`);
    const own = await tiedlora("merge", ...model, "--adapter", adapter, "--out", at("model"));
    assert.deepEqual([own.code, /that is the model's own directory/.test(own.info)], [2, true], own.info);
  });

  test("export and import go to peft's format and back", async () => {
    const exported = await tiedlora(
      "export",
      ...model,
      "--adapter",
      adapter,
      "--format",
      "peft-lora",
      "--out",
      at("peft"),
    );
    assert.equal(exported.code, 0, exported.info);
    const config = JSON.parse(readFileSync(at("peft/adapter_config.json"), "utf8")) as { peft_type: string };
    assert.equal(config.peft_type, "LORA");
    const imported = await tiedlora("import", ...model, "--adapter", at("peft"), "--out", at("back"));
    assert.equal(imported.code, 0, imported.info);
    const to = async (format: string): Promise<readonly [number, string]> => {
      const flags = [...model, "--adapter", adapter, "--format", format, "--out", at("y")];
      const { code, info } = await tiedlora("export", ...flags);
      return [code, info];
    };
    const [unknown, names] = await to("peff");
    assert.equal(unknown, 2, names);
    assert.match(names, /expected one of native, peft-lora/);
    const [none, why] = await to("peft");
    assert.equal(none, 1, why);
    assert.match(why, /peft has no kind of its own for tl6 .* export as peft-lora, or natively/);
    assert.ok(!existsSync(at("y")));
  });
});

suite("params", () => {
  test("counts from the architecture alone, exactly", async () => {
    for (const [model, method, rank, count] of [
      ["llama-2-7b", "lora", 8, 4_194_304],
      ["llama-2-7b", "vera", 8, 393_472],
      ["llama-2-7b", "tl5", 8, 131_072],
      ["llama-2-7b", "tl6", 8, 524_544],
      ["llama-2-7b", "lora", 128, 67_108_864],
      ["llama-2-7b", "tl6", 128, 2_494_464],
      ["gpt-2b-001", "lora", 8, 1_572_864],
      ["gpt-2b-001", "vera", 8, 147_648],
      ["gpt-2b-001", "tl5", 8, 65_536],
      ["gpt-2b-001", "tl6", 8, 213_184],
      [at("model"), "tl6", 2, 84],
    ] as const) {
      const { out } = await tiedlora(
        "params",
        "--model",
        model,
        "--method",
        method,
        "--rank",
        String(rank),
        "--target",
        "qkv",
        "--json",
      );
      assert.equal((JSON.parse(out) as { trainable: number }).trainable, count, `${model} ${method} ${rank}`);
    }
    const flags = "--model llama-2-7b --method tl6 --rank 8".split(" ");
    const { out } = await tiedlora("params", ...flags, "--target", "qkv");
    assert.match(out, /524,544 trainable parameters \(12\.51 % of LoRA's 4,194,304\)\n/);
    assert.match(out, /\ntarget qkv: 32 modules \(one A and one B for all 32 of them\)$/);
  });

  test("counts what train trains by default, and says how it is tied", async () => {
    const { out } = await tiedlora("params", "--model", at("model"), ..."--method tl6 --rank 2".split(" "));
    assert.match(out, /: 372 trainable parameters /);
    assert.match(out, /\ntarget all-linear: 14 modules \(one A and one B for each of 7 types of module, shared by all layers\)$/); // prettier-ignore
    const one = async (method: string): Promise<string> =>
      (await tiedlora("params", "--model", at("model"), "--method", method, "--rank", "2")).out;
    assert.match(await one("lora"), /\ntarget all-linear: 14 modules$/);
    assert.match(
      await one("vera"),
      /\ntarget all-linear: 14 modules \(one A and one B for all 14 of them\)$/,
    );
    assert.match(await one("sharelora-a"), / \(one A for each of 7 types of module, shared by all layers\)$/);
  });

  test("of a model that is not known suggests one", async () => {
    const { code, info } = await tiedlora("params", ..."--model llama2-7b --method tl6 --rank 8".split(" "));
    assert.deepEqual([code, /did you mean "llama-2-7b"\?/.test(info)], [2, true], info);
  });
});

test("every command's help has an example", () => {
  const program = createProgram({ interactive: false, out: () => {}, write: () => {}, info: () => {} });
  const without = program.commands.filter((command) => {
    let help = "";
    command.configureOutput({ writeOut: (text) => (help += text) });
    command.outputHelp();
    return !/Examples?:\n {2}tiedlora /.test(help);
  });
  assert.deepEqual(
    without.map((command) => command.name()),
    [],
  );
});

test("devices lists every backend, and why one is not there", async () => {
  const { code, out } = await tiedlora("devices", "--json");
  assert.equal(code, 0);
  const found = out
    .split("\n")
    .map((line) => JSON.parse(line) as { name: string; available: boolean; detail: string });
  assert.deepEqual(
    found.map(({ name }) => name),
    ["cpu", "webgpu", "reference"],
  );
  assert.ok(
    found.every(({ detail }) => detail !== ""),
    out,
  );
});

suite("as a program", () => {
  test("it exits with its code, and by itself", async () => {
    const version = await ended(
      start("params", ..."--model llama-2-7b --method tl6 --rank 8 --target qkv --json".split(" ")),
    );
    assert.deepEqual(
      [version.code, (JSON.parse(version.out) as { trainable: number }).trainable],
      [0, 524_544],
    );
    const wrong = await ended(start("train", "--model", at("nowhere"), "--data", "x", "--out", at("z")));
    assert.deepEqual([wrong.code, wrong.out], [2, ""]);
  });

  // The reference backend computes on the thread that would be told of the signal.
  for (const backend of ["cpu", "reference"]) {
    test(`Ctrl-C ends after the current step, keeps a checkpoint, and says how to go on: ${backend}`, async () => {
      const out = at(`ctrl-c-${backend}`);
      const child = start(
        "train",
        ...`--model ${at("model")} --data ${at("train.jsonl")} --out ${out} --json`.split(" "),
        ...`--steps 100000 --save-every 100000 --seq 32 --rank 2 --backend ${backend}`.split(" "),
      );
      child.stdout!.once("data", () => child.kill("SIGINT"));
      const { code, info } = await ended(child);
      assert.equal(code, 130, info);
      assert.match(info, /interrupted after step \d+; go on with: tiedlora train --resume --out .*ctrl-c/);
      assert.ok(existsSync(join(out, "checkpoints")), "a checkpoint was kept");
    });
  }
});
