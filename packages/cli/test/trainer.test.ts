/** The trainer on the command line: losses and preferences, data in the forms that people have, and which parameters are trained. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { gzipSync } from "node:zlib";
import { ended, type Result, scriptArguments, tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

suite("tiedlora train", () => {
  const folder = temporary();
  const path = (...names: string[]): string => join(folder, ...names);
  const lines = (name: string, records: readonly object[]): string => {
    writeFileSync(path(name), records.map((one) => `${JSON.stringify(one)}\n`).join(""));
    return path(name);
  };
  const metrics = (out: string): Record<string, number>[] =>
    readFileSync(path(out, "logs/metrics.jsonl"), "utf8").trim().split("\n").map((line) => JSON.parse(line) as Record<string, number>); // prettier-ignore
  const trained = (out: string, ...rest: string[]): Promise<Result> =>
    tiedlora("train", "--model", path("model"), "--out", path(out), "--steps", "4", "--rank", "2", "--seq", "64", "--batch", "2", ...rest); // prettier-ignore
  const refused = async (message: RegExp, ...rest: string[]): Promise<void> => {
    const { code, info } = await trained("refused", ...rest);
    assert.ok(code === 2 || code === 1, `${code}`);
    assert.match(info, message);
  };
  const pairsAsTexts = (): string => lines("texts.jsonl", PAIRS.map(({ prompt, chosen }) => ({ prompt, completion: chosen }))); // prettier-ignore
  const PAIRS = Array.from({ length: 12 }, (_, i) => ({ prompt: `say ${i}`, chosen: "yes", rejected: "no" }));
  let pairs = "";
  let examples = "";

  before(async () => {
    await writeModel(path("model"), { max_position_embeddings: 128 });
    examples = path("examples.jsonl");
    writeExamples(examples);
    pairs = lines("pairs.jsonl", PAIRS);
  });

  test("--loss dpo reports margin and accuracy of each step and evaluation, in all files, and resumes", async () => {
    const options = [
      "--data",
      pairs,
      "--loss",
      "dpo",
      "--beta",
      "0.5",
      "--valid-split",
      "0.25",
      "--eval-every",
      "2",
      "--lr",
      "0.03",
    ];
    const { code, info } = await trained("dpo", ...options, "--save-every", "2");
    assert.equal(code, 0, info);
    assert.match(info, /3 of them are held out \(--valid-split 0\.25\)/);
    assert.match(info, /step 4: validation loss 0\.\d+, accuracy 1\.0000, margin \d/);
    const all = metrics("dpo");
    assert.deepEqual([all[0]!["valid_loss"], all[0]!["valid_margin"]], [Math.fround(Math.LN2), 0]);
    assert.ok(
      all.at(-1)!["valid_margin"]! > 0 && all.at(-1)!["margin"]! > 0 && !("valid_perplexity" in all.at(-1)!),
    );
    const [header, ...rows] = readFileSync(path("dpo", "logs/metrics.csv"), "utf8").trim().split("\n");
    assert.match(header!, /,accuracy,margin,chosen_reward,rejected_reward,valid_accuracy,valid_margin,/);
    assert.equal(rows.at(-1)!.split(",").length, header!.split(",").length);
    const measured = await tiedlora("eval", "--model", path("model"), "--adapter", path("dpo"), "--data", pairs, "--loss", "dpo", "--beta", "0.5", "--seq", "64", "--json"); // prettier-ignore
    assert.equal(measured.code, 0, measured.info);
    const {
      examples: count,
      accuracy,
      margin,
      perplexity,
    } = JSON.parse(measured.out) as Record<string, number>;
    assert.deepEqual([count, accuracy, perplexity, margin! > 0], [12, 1, undefined, true]);
    const wrong = await tiedlora("eval", "--model", path("model"), "--data", pairs, "--loss", "orpo", "--z-loss", "1"); // prettier-ignore
    assert.deepEqual([wrong.code, /--z-loss is given, and --loss is orpo/.test(wrong.info)], [2, true]);
    const more = await tiedlora("train", "--resume", "--out", path("dpo"), "--steps", "6");
    assert.equal(more.code, 0, more.info);
    assert.equal(metrics("dpo").at(-1)!["step"], 6);
  });

  test("every other loss trains from the command line, with regularizers", async () => {
    const labeled = lines("labeled.jsonl", PAIRS.map(({ prompt }, i) => ({ prompt, completion: i % 2 ? "yes" : "no", label: i % 2 === 1 }))); // prettier-ignore
    const runs: Record<string, string[]> = {
      orpo: ["--data", pairs],
      ipo: ["--data", pairs],
      kto: ["--data", labeled, "--undesirable-weight", "2"],
      "cross-entropy": [
        "--data",
        examples,
        "--label-smoothing",
        "0.1",
        "--z-loss",
        "1e-4",
        "--regularize",
        "l2=0.01,kl=0.1",
      ],
      distillation: ["--data", examples, "--teacher", path("model"), "--temperature", "1"],
    };
    for (const [loss, options] of Object.entries(runs)) {
      const { code, info } = await trained(
        loss,
        "--loss",
        loss,
        "--steps",
        "2",
        "--accumulate",
        "2",
        ...options,
      );
      assert.equal(code, 0, info);
    }
    for (const loss of ["ipo", "kto", "distillation"]) {
      const { code, info } = await trained(`${loss}-streamed`, "--loss", loss, "--steps", "2", "--accumulate", "2", "--stream", ...runs[loss]!); // prettier-ignore
      assert.equal(code, 0, info);
      for (const [i, there] of metrics(loss).entries())
        for (const name of ["loss", "margin", "teacher_kl"] as const)
          if (there[name] !== undefined)
            assert.ok(
              Math.abs(metrics(`${loss}-streamed`)[i]![name]! - there[name]) < 1e-5,
              `${loss} ${name}`,
            );
    }
    assert.ok("l2" in metrics("cross-entropy").at(-1)! && "kl" in metrics("kto").at(-1)!);
    assert.ok(
      Math.abs(metrics("distillation")[0]!["teacher_kl"]!) < 1e-6,
      "the model is its own teacher here",
    );
  });

  test("settings that fit nothing exit with the code of usage, and say what was given and what to do", async () => {
    const chats = lines("chats.jsonl", [{ messages: [{ role: "user", content: "q" }, { role: "assistant", content: "a" }] }]); // prettier-ignore
    mkdirSync(path("gsm"));
    for (const [file, question] of [
      ["train", "1 + 1?"],
      ["test", "1 + 1? ".repeat(30)],
    ] as const)
      // prettier-ignore
      writeFileSync(join(path("gsm"), `${file}.jsonl`), JSON.stringify({ question, answer: "#### 2" }));
    const WRONG: readonly (readonly [RegExp, ...string[]])[] = [
      [/matches no linear module after exclude and layers/, "--layers", "9"],
      [/rankPattern "zzz" matches none of the adapted modules/, "--rank-pattern", "zzz=2"],
      [/modulesToSave "zzz" matches no module/, "--modules-to-save", "zzz"],
      [/trainedTokens has 999, and model.embed_tokens has \d+ rows/, "--trained-tokens", "999"],
      [/trained-tokens: tokens has 999, and model.embed_tokens has \d+ rows/, "--method", "trained-tokens", "--method-options", "tokens=[999]"],
      [/alpha 3 given, and this method's formula has no scale/, "--method", "ia3", "--alpha", "3"],
      [/rates: "zzz" matches no parameter/, "--rates", "zzz=2"],
      [/expected names with numbers of at least 0/, "--rates", "B=-1"],
      [/loraPlus raises the learning rate of B, and vera trains no factor/, "--method", "vera", "--lora-plus", "4"],
      [/--callbacks none.mjs: Cannot find module/, "--callbacks", "none.mjs"],
      [/1000 of \d+ examples to hold out; expected/, "--valid-split", "1000"],
      [/--also .*=0: nothing would be taken from it/, "--also", `${examples}=0`],
      [/--regularize orthogonal: ia3 trains no matrix/, "--method", "ia3", "--regularize", "orthogonal=1"],
      [/--separator is given beside --task choice/, "--separator", "x", "--task", "choice"],
      [/--seq 8: none of the examples of arithmetic to train on fits, the shortest has \d+ tokens; give at least --seq \d+/, "--task", "arithmetic", "--seq", "8"],
      [/--seq 32: none of the examples of gsm8k to hold out fits, the shortest has 2\d\d tokens; give at least --seq 2\d\d/, "--data", path("gsm"), "--task", "gsm8k", "--seq", "32"],
      [/--separator "x": .*chats.jsonl holds conversations/, "--data", chats, "--separator", "x"],
      [/--prompt-column: --loss dpo reads the fields prompt, chosen and rejected/, "--data", pairs, "--loss", "dpo", "--prompt-column", "q"],
      [/--pack: the examples of --loss dpo have two rows each/, "--data", pairs, "--loss", "dpo", "--pack"],
    ]; // prettier-ignore
    for (const [message, ...options] of WRONG) {
      const data = options.includes("--data") ? [] : ["--data", examples];
      const { code, info } = await trained("wrong", ...data, ...options);
      assert.equal(code, 2, `${options.join(" ")}: ${info}`);
      assert.match(info, message);
    }
    for (const [message, ...argv] of [
      [/--separator is given with --chat/, "generate", "--model", path("model"), "--prompt", "x", "--chat", "--separator", "y"],
      [/--top-k 4 has no effect at --temperature 0/, "chat", "--model", path("model"), "--top-k", "4"],
      [/holds conversations/, "eval", "--model", path("model"), "--data", chats, "--separator", "x", "--seq", "32"],
      [/at least 0, at most 65535/, "serve", "--model", path("model"), "--port", "99999"],
      [/there is no such directory; expected an adapter/, "serve", "--model", path("model"), "--adapter", path("none")],
    ] as readonly [RegExp, ...string[]][]) {
      const { code, info } = await tiedlora(...argv);
      assert.equal(code, 2, `${argv.join(" ")}: ${info}`);
      assert.match(info, message);
    } // prettier-ignore
  });

  test("norms and rows of the embedding train beside other modules; a tied embedding is merged with --untie", async () => {
    await writeModel(path("tied"), { tie_word_embeddings: true });
    const base = ["--model", path("tied"), "--data", examples, "--valid", examples, "--seq", "32"];
    const run = await tiedlora("train", ...base, "--method", "lora", "--rank", "2", "--target", "q_proj,input_layernorm", "--trained-tokens", "40-60", "--steps", "3", "--lr", "0.05", "--out", path("rows")); // prettier-ignore
    assert.equal(run.code, 0, run.info);
    const lossOf = async (...flags: string[]): Promise<number> => {
      const { code, out, info } = await tiedlora(
        "eval",
        "--data",
        examples,
        "--seq",
        "32",
        "--json",
        ...flags,
      );
      assert.equal(code, 0, info);
      return (JSON.parse(out) as { readonly loss: number }).loss;
    };
    const merge = (...flags: string[]): Promise<Result> =>
      tiedlora("merge", "--adapter", path("rows"), "--out", path("merged"), ...flags);
    const refused = await merge();
    assert.match(refused.info, /is the same weight as lm_head.weight.*tiedlora merge --untie/);
    const merged = await merge("--untie");
    assert.equal(merged.code, 0, merged.info);
    const loss = await lossOf("--adapter", path("rows"));
    assert.ok(Math.abs((await lossOf("--model", path("merged"))) - loss) < 1e-5);
    assert.ok(Math.abs((await lossOf("--model", path("tied"))) - loss) > 1e-3);
    const both = await tiedlora("train", ...base, "--method", "lora", "--rank", "2", "--target", "embed_tokens,lm_head", "--steps", "2", "--lr", "0.05", "--out", path("both")); // prettier-ignore
    assert.equal(both.code, 0, both.info);
    const ownWeights = await tiedlora("merge", "--adapter", path("both"), "--out", path("own"), "--untie");
    assert.equal(ownWeights.code, 0, ownWeights.info);
    const learned = await lossOf("--adapter", path("both"));
    assert.ok(Math.abs((await lossOf("--model", path("own"))) - learned) < 1e-5);
  });

  test("a pair without a rejected answer, and options of another loss, are refused by name", async () => {
    await refused(/broken\.jsonl, line 2: "rejected" is missing: .*Add it, or leave the pair out/, "--loss", "dpo", "--data", lines("broken.jsonl", [PAIRS[0]!, { prompt: "q", chosen: "a" }])); // prettier-ignore
    await refused(
      /--beta is given, and --loss is cross-entropy; it is for dpo, ipo/,
      "--data",
      examples,
      "--beta",
      "1",
    );
    await refused(/--teacher is missing/, "--data", examples, "--loss", "distillation");
    await refused(/expected one of .*\(did you mean dpo\?\)/, "--data", examples, "--loss", "dpoo");
    await refused(/--regularize: there is no "l3"; there are l2/, "--data", examples, "--regularize", "l3=1");
    await refused(/--data is missing: give it/);
    await refused(
      /--valid-split is given beside --valid/,
      "--data",
      examples,
      "--valid-split",
      "2",
      "--valid",
      examples,
    );
  });

  test("rates, layers, patterns, whole modules and biases are chosen on the command line and saved with the run", async () => {
    const chosen = [
      "--method", "lora", "--target", "q_proj,v_proj", "--layers", "1", "--rank-pattern", "q_proj=3", "--modules-to-save", "norm",
      "--lora-plus", "16", "--rates", "v_proj.A=0.5", "--decays", "B=0",
    ]; // prettier-ignore
    const { code, info } = await trained("chosen", "--data", examples, ...chosen);
    assert.equal(code, 0, info);
    // q: 3 · (8 + 8), v: 2 · (8 + 4), the norms of width 8: one at the end
    assert.match(info, /80 trainable parameters in 2 modules/);
    assert.match(readFileSync(path("chosen", "run.yaml"), "utf8"), /lora-plus: 16/);
    const again = await tiedlora("train", "--config", path("chosen", "run.yaml"), "--out", path("again"));
    assert.equal(again.code, 0, again.info);
    assert.deepEqual(metrics("again").map(({ loss }) => loss), metrics("chosen").map(({ loss }) => loss)); // prettier-ignore
    await refused(/"w_proj" matches no parameter of the adapter/, "--data", examples, "--rates", "w_proj=2");
    await refused(/expected layers from 0 on, as 0-3,7/, "--data", examples, "--layers", "one");
  });

  test("--callbacks are told what happens, in order; the example writes MLflow's file store", async () => {
    const own = join(import.meta.dirname, "../../../examples/callbacks/mlflow.js");
    process.env["MLFLOW_TRACKING_DIR"] = path("mlruns");
    const options = ["--data", examples, "--valid", examples, "--eval-every", "2"];
    const { code, info } = await trained("logged", ...options, "--callbacks", own);
    delete process.env["MLFLOW_TRACKING_DIR"];
    assert.equal(code, 0, info);
    const [run] = readdirSync(path("mlruns/0")).filter((name) => name !== "meta.yaml");
    const read = (name: string): string => readFileSync(path("mlruns/0", run!, name), "utf8");
    assert.deepEqual([read("params/rank"), read("tags/mlflow.runName"), /^status: 3$/m.test(read("meta.yaml"))], ["2", "logged", true]); // prettier-ignore
    const values = (name: string): number[][] => read(`metrics/${name}`).trim().split("\n").map((line) => line.split(" ").slice(1).map(Number)); // prettier-ignore
    assert.deepEqual(values("loss"), metrics("logged").slice(1).map(({ loss, step }) => [loss, step])); // prettier-ignore
    assert.deepEqual(values("valid_loss").map(([, step]) => step), [0, 2, 4]); // prettier-ignore
    const module = (name: string, text: string): string[] => {
      writeFileSync(path(name), text);
      return ["--data", examples, "--callbacks", path(name)];
    };
    await refused(/there is no callback onStepp \(did you mean onStep\?\)/, ...module("a.mjs", "export const onStepp = 1;")); // prettier-ignore
    await refused(/it exports none of onStart, onStep/, ...module("b.mjs", "export const x = 1;"));
    await refused(/onStep is number; expected a function/, ...module("c.mjs", "export const onStep = 1;"));
    await refused(/onStep failed: no space for step 2/, ...module("d.mjs", "export const onStep = async ({ step }) => { if (step === 2) throw new Error(`no space for step ${step}`); };")); // prettier-ignore
  });

  test("a task's questions are trained on, and some of them held out", async () => {
    const { code, info } = await trained("task", "--task", "arithmetic", "--seq", "128");
    assert.equal(code, 0, info);
    assert.match(info, /examples of arithmetic \(.*\), and \d+ held out/);
    await refused(/--data is missing: give it/, "--task", "gsm8k");
  });

  test("compressed files, several fields in a prompt, and a chat template in place of the model's", async () => {
    writeFileSync(path("a.jsonl.gz"), gzipSync(readFileSync(examples)));
    assert.equal((await trained("gz", "--data", path("a.jsonl.gz"))).code, 0);
    const fields = lines("fields.jsonl", [
      { q: "1+1", hint: "two", answer: "2" },
      { q: "1+2", hint: "more", answer: "3" },
    ]);
    const prompted = await trained("prompted", "--data", fields, "--prompt-template", "Q: {q} ({hint})");
    assert.equal(prompted.code, 0, prompted.info);
    assert.match(prompted.info, /before training: Q: 1\+1 \(two\)/);
    await refused(/the prompt template needs "hnt"; there are q, hint, answer \(did you mean "hint"\?\)/, "--data", fields, "--prompt-template", "{hnt}"); // prettier-ignore
    const chats = lines("chats.jsonl", [
      {
        messages: [
          { role: "user", content: "q" },
          { role: "assistant", content: "a" },
        ],
      },
    ]);
    const chat = await trained("chat", "--data", chats, "--chat-template", "zephyr");
    assert.equal(chat.code, 0, chat.info);
    assert.match(chat.info, /before training: .*<\|user\|>/);
    await refused(/--chat-template zefyr: there is no such file; as a name, did you mean "zephyr"/, "--data", chats, "--chat-template", "zefyr"); // prettier-ignore
  });

  test("a file is read while training, through a buffer, and a resumed run goes on with the same examples", async () => {
    const options = ["--data", examples, "--shuffle-buffer", "6", "--valid", examples, "--eval-every", "10"];
    const whole = await trained("streamed", ...options);
    assert.equal(whole.code, 0, whole.info);
    assert.match(whole.info, /is read while training, through a buffer of 6 examples/);
    await trained("cut", ...options, "--steps", "2", "--schedule", "constant", "--warmup", "0");
    const more = await tiedlora("train", "--resume", "--out", path("cut"), "--steps", "4");
    assert.equal(more.code, 0, more.info);
    await trained("straight", ...options, "--schedule", "constant", "--warmup", "0");
    assert.deepEqual(metrics("cut").map(({ loss }) => loss), metrics("straight").map(({ loss }) => loss)); // prettier-ignore
    const { code, info } = await tiedlora("train", "--model", path("model"), "--out", path("refused"), "--data", examples, "--shuffle-buffer", "6", "--epochs", "2"); // prettier-ignore
    assert.equal(code, 2);
    assert.match(info, /--shuffle-buffer: --epochs 2 cannot be counted/);
    await refused(/--shuffle-buffer: --valid-split divides examples in memory/, "--data", examples, "--shuffle-buffer", "6", "--valid-split", "2"); // prettier-ignore
  });

  test("several files are mixed by weight", async () => {
    const { code, info } = await trained(
      "mixed",
      "--data",
      examples,
      "--also",
      `${pairsAsTexts()}=3`,
      "--valid-split",
      "0.1",
    );
    assert.equal(code, 0, info);
    assert.match(info, /mixed by weight: 25 %, 75 %/);
  });

  test("examples come from standard input", async () => {
    const child = spawn(process.execPath, [...scriptArguments("tiedlora.ts"), "train", "--model", path("model"), "--out", path("piped"), "--data", "-", "--steps", "1", "--seq", "32"], { cwd: join(import.meta.dirname, "../../.."), stdio: ["pipe", "pipe", "pipe"] }); // prettier-ignore
    child.stdin.end(readFileSync(examples));
    const { code, info } = await ended(child);
    assert.equal(code, 0, info);
    assert.match(info, /24 examples from stdin\.jsonl/);
  });
});
