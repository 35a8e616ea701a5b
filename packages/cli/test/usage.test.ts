import assert from "node:assert/strict";
import { cpSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { METHOD_NAMES } from "tiedlora";
import { shellWord } from "../src/output.ts";
import { tiedlora, type Result } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);
await writeModel(at("model"));
writeExamples(at("train.jsonl"));

const TRAIN = ["--model", at("model"), "--data", at("train.jsonl"), "--backend", "reference"];
const SMALL = [
  ..."--steps 2 --batch 2 --seq 32 --rank 2 --target q_proj,v_proj --lr 0.01".split(" "),
  ...TRAIN,
];

async function refused(code: number, message: RegExp, ...argv: string[]): Promise<Result> {
  const result = await tiedlora(...argv);
  assert.match(result.info, message);
  assert.equal(result.code, code, result.info);
  return result;
}

suite("the command says what it is", () => {
  test("its version is the package's", async () => {
    const manifest = readFileSync(join(import.meta.dirname, "../package.json"), "utf8");
    const { code, out } = await tiedlora("--version");
    assert.deepEqual([code, out], [0, (JSON.parse(manifest) as { version: string }).version]);
  });

  test("params --help lists every method", async () => {
    const { out } = await tiedlora("params", "--help");
    const words = out.split(/[\s,]+/);
    assert.deepEqual(
      METHOD_NAMES.filter((name) => !words.includes(name)),
      [],
    );
  });
});

test("--no-revectorize is an option of every command, before or after its name", async () => {
  for (const argv of [
    ["devices", "--no-revectorize"],
    ["--no-revectorize", "devices"],
  ]) {
    const { code, out, info } = await tiedlora(...argv);
    assert.equal(code, 0, info);
    assert.match(out, /^cpu .* WebAssembly SIMD of 128 bits/m);
    assert.doesNotMatch(info, /256-bit/);
  }
  const { out } = await tiedlora("train", "--help");
  assert.match(out, /--no-revectorize/);
});

suite("names", () => {
  test("are taken in any case, and kept as they are written in the list", async () => {
    const { code, out, info } = await tiedlora(
      ..."params --model LLaMA-2-7B --method TL6 --rank 8 --target QKV --json".split(" "),
    );
    assert.equal(code, 0, info);
    const { method, trainable } = JSON.parse(out) as { method: string; trainable: number };
    assert.deepEqual([method, trainable], ["tl6", 524_544]);
  });

  test("of other programs' options are known", async () => {
    for (const [given, ours] of [
      ["learning-rate", "lr"],
      ["batch_size", "batch"],
      ["output_dir", "out"],
      ["lora-r", "rank"],
    ])
      await refused(
        2,
        new RegExp(`unknown option '--${given}'\n\\(Did you mean --${ours}\\?\\)`),
        "train",
        `--${given}`,
        "3",
      );
    const { info } = await refused(
      2,
      /unknown option '--learning-rate'/,
      "inspect",
      "x",
      "--learning-rate",
      "3",
    );
    assert.doesNotMatch(info, /--lr/, "which inspect does not have");
  });

  test("of modules are corrected, also of one among others that fit", async () => {
    const target = (names: string): Promise<Result> =>
      refused(
        2,
        /no module is called "q_prj"; did you mean "q_proj"\?/,
        "train",
        ...SMALL,
        "--out",
        at("none"),
        "--target",
        names,
      );
    await target("q_prj");
    await target("v_proj,q_prj");
  });
});

suite("what would be ignored is refused", () => {
  test("two of an option that takes one", async () => {
    await refused(
      2,
      /--adapter is given twice, as a and as b; give it once/,
      "generate",
      "--adapter",
      "a",
      "--adapter",
      "b",
    );
    await refused(2, /--data is given twice/, "train", "--data", "a", "--data", "b");
  });

  test("--resume with --restart", async () => {
    await refused(
      2,
      /--resume goes on with a run, and --restart throws it away/,
      "train",
      "--resume",
      "--restart",
      "--out",
      at("x"),
    );
  });

  test("--resume of a run that is not there, where nothing says how to begin one", async () => {
    const nowhere = at("no-run-here");
    await refused(
      2,
      /--resume: there is no run in .*no-run-here, and to begin one, --model is missing/,
      "train",
      "--resume",
      "--out",
      nowhere,
    );
    assert.equal(existsSync(nowhere), false);
  });

  test("--steps of a run that goes on is remembered", async () => {
    const run = async (...flags: string[]): Promise<void> => {
      const { code, info } = await tiedlora("train", "--resume", "--out", at("longer"), ...flags);
      assert.equal(code, 0, info);
    };
    await run(...SMALL);
    await run("--steps", "4");
    assert.match(readFileSync(at("longer", "run.yaml"), "utf8"), /^steps: 4$/m);
  });

  test("--patience without held-out examples", async () => {
    const message = /--patience 3: there are no held-out examples to measure; give some with --valid/;
    await refused(2, message, "train", ...SMALL, "--out", at("patient"), "--patience", "3");
    await refused(2, message, "validate", ...SMALL, "--out", at("patient"), "--patience", "3");
    const { code, info } = await tiedlora(
      "train",
      ...SMALL,
      "--out",
      at("held"),
      "--patience",
      "3",
      "--valid",
      at("train.jsonl"),
    );
    assert.equal(code, 0, info);
  });

  test("a model, a sequence or a rank that cannot be is wrong usage", async () => {
    await refused(
      2,
      /there is no such directory/,
      "train",
      "--model",
      at("missing"),
      "--data",
      at("train.jsonl"),
      "--out",
      at("x"),
    );
    await refused(2, /the model knows \d+ positions/, "train", ...SMALL, "--out", at("x"), "--seq", "100000");
    await refused(2, /rank 5000 is too large/, "train", ...SMALL, "--out", at("x"), "--rank", "5000");
    await refused(2, /there is no such file or directory/, "inspect", at("missing"));
    await refused(
      2,
      /there is no adapter_config\.json in it/,
      "generate",
      "--adapter",
      folder,
      "--prompt",
      "x",
    );
  });
});

suite("commands that need no tokenizer", () => {
  test("merge, export, import and inspect work on a model without one; generate names the file", async () => {
    const { code, info } = await tiedlora("train", ...SMALL, "--method", "lora", "--out", at("adapter"));
    assert.equal(code, 0, info);
    cpSync(at("model"), at("bare"), { recursive: true });
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) rmSync(at("bare", name), { force: true });
    const flags = (adapter: string): string[] => [
      "--model",
      at("bare"),
      "--adapter",
      at(adapter),
      "--backend",
      "reference",
    ];
    const done = async (...argv: string[]): Promise<void> => {
      const result = await tiedlora(...argv);
      assert.equal(result.code, 0, result.info);
    };
    await done("merge", ...flags("adapter"), "--out", at("merged"));
    await done("export", ...flags("adapter"), "--format", "peft-lora", "--out", at("peft"));
    await done("import", ...flags("peft"), "--out", at("back"));
    await done("inspect", at("back"), "--model", at("bare"), "--backend", "reference");
    await refused(1, /tokenizer\.json/, "generate", ...flags("adapter"), "--prompt", "say red0");
  });

  test("combine writes one adapter of several, and says what an approximation loses", async () => {
    const base = ["--model", at("bare"), "--backend", "reference"];
    const named = ["--adapter", `a=${at("adapter")}`, `b=${at("back")}`, "--weights", "b=-1"];
    const nothing = await tiedlora("combine", ...base, ...named, "--out", at("nothing"));
    assert.equal(nothing.code, 0, nothing.info);
    assert.doesNotMatch(nothing.info, /what is lost/);
    const inspected = await tiedlora("inspect", at("nothing"), ...base);
    assert.equal(inspected.code, 0, inspected.info);
    assert.match(inspected.out, /q_proj \[8, 8\] rank 4, scale 1/, "the ranks of both, of which each has 2");
    const one = await tiedlora("combine", ...base, "--adapter", at("adapter"), "--how", "svd", "--rank", "2", "--out", at("two")); // prettier-ignore
    assert.equal(one.code, 0, one.info);
    assert.match(
      one.info,
      /what is lost of an update, as a share of its norm: [\d.e-]+ % in the mean of \d+ modules/,
    );
    const ties = await tiedlora(
      "combine",
      ...base,
      ...named,
      "--how",
      "ties",
      "--density",
      "0.3",
      "--out",
      at("ties"),
    );
    assert.equal(ties.code, 0, ties.info);
    await refused(2, /--weights: there is no adapter "c"; there are a, b/, "combine", ...base, ...named.slice(0, 3), "--weights", "c=1", "--out", at("x")); // prettier-ignore
    await refused(2, /"b=many" is no name with a number/, "combine", ...base, ...named.slice(0, 3), "--weights", "b=many", "--out", at("x")); // prettier-ignore
    await refused(2, /two adapters are called "adapter"/, "combine", ...base, "--adapter", at("adapter"), at("adapter"), "--out", at("x")); // prettier-ignore
    assert.ok(!existsSync(at("x")));
  });
});

suite("generation past the positions of a rotary model", () => {
  test("says so", async () => {
    const generate = (tokens: string): Promise<Result> =>
      tiedlora(
        "generate",
        "--model",
        at("model"),
        "--backend",
        "reference",
        "--prompt",
        "say red0",
        "--max-tokens",
        tokens,
        "--stop",
        "e",
      );
    const note = /note: a prompt of \d+ tokens and up to 100000 new ones go past the \d+ positions/;
    assert.match((await generate("100000")).info, note);
    assert.equal((await generate("2")).info, "");
  });
});

test("what is to be typed again is quoted for the shell", () => {
  assert.equal(shellWord("./adapter-1"), "./adapter-1");
  assert.equal(shellWord("my adapter"), "'my adapter'");
  assert.equal(shellWord("it's"), String.raw`'it'\''s'`);
  assert.equal(shellWord(""), "''");
});
