/** The messages of the commands about data and tokenizers that do not fit, and their treatment of separators. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);
await writeModel(at("model"));
writeExamples(at("train.jsonl"));

suite("a tokenizer with more tokens than the model's embedding has rows", () => {
  const folderOf = at("more-tokens");
  const flags = (data: string): string[] =>
    `--model ${folderOf} --data ${at(data)} --seq 32 --batch 2 --backend reference`.split(" ");
  const training = (out: string): string[] => [
    "--rank",
    "2",
    "--lr",
    "0.01",
    "--steps",
    "3",
    "--out",
    at(out),
  ];

  /** Adds a token of the id 98; the model's embedding has 98 rows. */
  before(async () => {
    await writeModel(folderOf);
    const path = join(folderOf, "tokenizer.json");
    const tokenizer = JSON.parse(readFileSync(path, "utf8")) as { added_tokens: Record<string, unknown>[] };
    tokenizer.added_tokens.push({ ...tokenizer.added_tokens[0], id: 98, content: "<pad>" });
    writeFileSync(path, JSON.stringify(tokenizer));
    const config = join(folderOf, "tokenizer_config.json");
    writeFileSync(
      config,
      JSON.stringify({ ...JSON.parse(readFileSync(config, "utf8")), pad_token: "<pad>" }),
    );
    writeFileSync(
      at("padded.jsonl"),
      '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": "b<pad>"}\n',
    );
  });

  test("is of no consequence where they are padding alone", async () => {
    const padded = await tiedlora("train", ...flags("train.jsonl"), ...training("padded"));
    const plain = await tiedlora("train", ...flags("train.jsonl").with(1, at("model")), ...training("plain"));
    assert.deepEqual([padded.code, plain.code], [0, 0], padded.info);
    const losses = (text: string): string[] => text.match(/loss \d\.\d{4}/g) ?? [];
    assert.ok(losses(plain.info).length >= 3);
    assert.deepEqual(losses(padded.info), losses(plain.info));
  });

  for (const command of ["validate", "train", "eval"]) {
    test(`${command} names the line that holds one`, async () => {
      const more = command === "eval" ? [] : training("refused");
      const { code, info } = await tiedlora(command, ...flags("padded.jsonl"), ...more);
      assert.equal(code, 1, info);
      assert.match(
        info,
        /padded\.jsonl, line 2: token 98 \("<pad>"\) is in the tokenizer.*rows for 0 to 97 alone/,
      );
    });
  }
});

suite("a separator", () => {
  const SEPARATOR = " -> ";
  const run = async (command: string, ...argv: string[]): Promise<string> => {
    const { code, out, info } = await tiedlora(command, "--backend", "reference", ...argv);
    assert.equal(code, 0, info);
    return out;
  };
  const continued = (adapter: string, prompt: string, ...more: string[]): Promise<string> =>
    run("generate", "--adapter", at(adapter), "--prompt", prompt, "--max-tokens", "6", "--json", ...more);
  const completion = (json: string): string => (JSON.parse(json) as { completion: string }).completion;
  const FLAGS = ["--data", at("train.jsonl"), "--model", at("model"), "--seq", "32"];

  before(async () => {
    const training = "--rank 2 --lr 0.05 --steps 2 --batch 4".split(" ");
    await run("train", ...FLAGS, ...training, "--separator", SEPARATOR, "--out", at("with"));
    await run("train", ...FLAGS, ...training, "--out", at("without"));
  });

  test("is kept with the adapter, and put after the prompts of generate", async () => {
    const expected = completion(await continued("with", `say red1${SEPARATOR}`, "--separator", ""));
    assert.equal(completion(await continued("with", "say red1")), expected);
    assert.notEqual(completion(await continued("with", "say red1", "--separator", "")), expected);
    // Without one, a prompt is what it is.
    const plain = await continued("without", "say red1");
    assert.equal(plain, await continued("without", "say red1", "--separator", ""));
  });

  test("goes along into other formats", async () => {
    await run("export", "--adapter", at("with"), "--format", "peft-lora", "--out", at("peft"));
    const own = ["--model", at("model")];
    assert.equal(await continued("peft", "say red1", ...own), await continued("with", "say red1", ...own));
    const merged = await tiedlora(
      "merge",
      "--adapter",
      at("with"),
      "--out",
      at("merged"),
      "--backend",
      "reference",
    );
    assert.match(
      merged.info,
      /note: the adapter was trained with " -> " after every prompt: end prompts with it/,
    );
  });

  test("is what eval measures with", async () => {
    const loss = (...more: string[]): Promise<string> =>
      run("eval", ...FLAGS, "--adapter", at("with"), "--json", ...more);
    const kept = await loss();
    assert.equal(kept, await loss("--separator", SEPARATOR));
    assert.notEqual(kept, await loss("--separator", " "));
  });
});

suite("validate, train and eval say", () => {
  const FLAGS = (data: string): string[] =>
    `--model ${at("model")} --data ${at(data)} --seq 32 --backend reference`.split(" ");
  const each = async (data: string): Promise<{ code: number; info: string }[]> => [
    await tiedlora("validate", ...FLAGS(data), "--out", at("never")),
    await tiedlora(
      "train",
      ...FLAGS(data),
      ..."--rank 2 --steps 1 --batch 2 --out".split(" "),
      at(`said-${data}`),
    ),
    await tiedlora("eval", ...FLAGS(data)),
  ];

  test("which characters the tokenizer does not know, and what to do", async () => {
    writeFileSync(at("accents.csv"), "prompt,completion\na,née\nb,é\n");
    for (const { code, info } of await each("accents.csv")) {
      assert.equal(code, 0, info);
      assert.match(
        info,
        /note: the model's tokenizer does not know "é" 2 times: it leaves them out.*replace them in the data.*or choose a model/,
      );
    }
  });

  test("which line has a role that is not known", async () => {
    writeFileSync(
      at("roles.jsonl"),
      '{"messages": [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]}\n',
    );
    for (const { code, info } of await each("roles.jsonl")) {
      assert.equal(code, 1);
      assert.match(info, /roles\.jsonl, line 1: .*messages\[0\] has the role "human".*did you mean "user"/);
    }
  });

  test("how many chats have no answer", async () => {
    const lines = ["user", "assistant"].map((role) => JSON.stringify({ messages: [{ role: "user", content: "a" }, { role, content: "b" }] })); // prettier-ignore
    writeFileSync(at("unanswered.jsonl"), lines.join("\n"));
    for (const { code, info } of await each("unanswered.jsonl")) {
      assert.equal(code, 0, info);
      assert.match(info, /note: 1 left out: they have no turn of the assistant; lines 1/);
    }
  });
});
