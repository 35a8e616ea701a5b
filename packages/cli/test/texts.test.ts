/** Files of prompts and of predictions: what is asked is answered in order, once, and in whole files. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel, writeSums } from "./support/model-directory.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);
await writeModel(at("model"));
writeExamples(at("test.jsonl"), 6);
writeSums(folder);

const REFERENCE = ["--model", at("model"), "--backend", "reference"];
const lines = (path: string): Record<string, unknown>[] =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe("generate --prompts", () => {
  const prompts = at("prompts.jsonl");
  const asked = ["say red", "say something longer", "hm"].map((prompt, id) => ({ id, prompt }));
  const write = (path: string, records: readonly object[]): void =>
    writeFileSync(path, records.map((one) => `${JSON.stringify(one)}\n`).join(""));
  const generate = (out: string, ...more: string[]): ReturnType<typeof tiedlora> =>
    tiedlora("generate", ...REFERENCE, "--prompts", prompts, "--out", at(out), "--max-tokens", "6", ...more);

  test("answers as generate does one by one, with the fields of each line, in their order", async () => {
    write(prompts, [...asked, { id: 3, messages: [{ role: "user", content: "hm" }] }]);
    const { code, info } = await generate("all.jsonl", "--batch", "2");
    assert.equal(code, 0, info);
    const answers = lines(at("all.jsonl"));
    assert.deepEqual(answers.map(({ id }) => id), [0, 1, 2, 3]); // prettier-ignore
    for (const [i, { prompt }] of asked.entries()) {
      const one = await tiedlora("generate", ...REFERENCE, "--prompt", prompt, "--max-tokens", "6", "--json");
      assert.deepEqual(JSON.parse(one.out), { prompt, completion: answers[i]!["completion"] });
    }
    assert.equal(existsSync(at("all.jsonl.unfinished")), false);
    assert.match(
      (await generate("all.jsonl")).info,
      /all\.jsonl: this file exists; give another name, or --force/,
    );
    assert.match((await generate("new.jsonl", "--resume")).info, /no .*new\.jsonl\.unfinished to go on with/);
  });

  test("goes on where a run was stopped, and refuses answers to other prompts", async () => {
    write(prompts, asked);
    await generate("whole.jsonl", "--temperature", "1");
    const whole = readFileSync(at("whole.jsonl"), "utf8");
    const [first] = lines(at("whole.jsonl"));
    writeFileSync(at("cut.jsonl.unfinished"), `${JSON.stringify(first)}\n{"id": 1, "pro`);
    assert.match((await generate("cut.jsonl")).info, /has answers of a run that was stopped; give --resume/);
    const { code, info } = await generate("cut.jsonl", "--temperature", "1", "--resume");
    assert.equal(code, 0, info);
    assert.match(info, /3 answers written to .*, 1 of them by an earlier run/);
    assert.equal(readFileSync(at("cut.jsonl"), "utf8"), whole);
    renameSync(at("cut.jsonl"), at("cut.jsonl.unfinished"));
    write(prompts, asked.slice(1));
    assert.match(
      (await generate("cut.jsonl", "--resume")).info,
      /line 1: this is not the answer to line 1 of/,
    );
  });

  test("names the line that cannot be answered", async () => {
    writeFileSync(prompts, '{"prompt": "a"}\n{"question": "b"}\n');
    assert.match((await generate("bad.jsonl")).info, /line 2: there is no prompt; the fields are question/);
    assert.match((await tiedlora("generate", ...REFERENCE, "--prompts", prompts)).info, /--out is missing/);
    const alone = await tiedlora("generate", ...REFERENCE, "--prompt", "a", "--resume");
    assert.deepEqual([alone.code, /--resume belongs to --prompts/.test(alone.info)], [2, true]);
  });
});

describe("eval", () => {
  test("judges the answers to any file by metrics, and writes them", async () => {
    const argv = ["eval", ...REFERENCE, "--data", at("test.jsonl"), "--seq", "48", "--json"];
    const metrics = ["--metrics", "exact-match,f1,bleu,rouge-l", "--max-tokens", "5"];
    const { code, out, info } = await tiedlora(...argv, ...metrics, "--predictions", at("predictions.jsonl"));
    assert.equal(code, 0, info);
    const result = JSON.parse(out) as Record<string, number>;
    assert.deepEqual(Object.keys(result), ["examples", "tokens", "loss", "perplexity", "exact match", "F1", "BLEU", "ROUGE-L"]); // prettier-ignore
    const predictions = lines(at("predictions.jsonl"));
    assert.equal(predictions.length, 6);
    assert.deepEqual(predictions[1]!["references"], ["green!"]);
    const shown = await tiedlora(
      "generate",
      ...REFERENCE,
      "--prompt",
      "say red0",
      "--max-tokens",
      "5",
      "--json",
    );
    const { completion } = JSON.parse(shown.out) as { completion: string };
    assert.equal(predictions[0]!["prediction"], completion.trim());
    const again = await tiedlora(...argv, ...metrics, "--batch", "2", "--predictions", at("again.jsonl"));
    assert.deepEqual(lines(at("again.jsonl")), predictions, "whatever the batch");
    assert.ok(Math.abs((JSON.parse(again.out) as { loss: number }).loss - result["loss"]!) < 1e-5);
    // one answer in three is made right
    const known = predictions.filter(({ prediction }) => prediction !== "");
    const completions = known.map(({ prompt, prediction }, i) => ({ prompt, completion: i % 3 === 0 ? prediction : `not ${String(prediction)}` })); // prettier-ignore
    writeFileSync(at("known.jsonl"), completions.map((one) => `${JSON.stringify(one)}\n`).join(""));
    const right = await tiedlora(...argv.with(argv.indexOf(at("test.jsonl")), at("known.jsonl")), "--metrics", "accuracy", "--max-tokens", "5"); // prettier-ignore
    const { accuracy } = JSON.parse(right.out) as { accuracy: number };
    assert.ok(
      Math.abs(accuracy - (100 * Math.ceil(known.length / 3)) / known.length) < 1e-9,
      String(accuracy),
    );
    const plain = await tiedlora(...argv);
    assert.deepEqual(Object.keys(JSON.parse(plain.out) as object), ["examples", "tokens", "loss", "perplexity"]); // prettier-ignore
  });

  test("writes the predictions of a task with its own metrics", async () => {
    const task = ["eval", ...REFERENCE, "--task", "gsm8k", "--data", at("gsm8k"), "--seq", "48"];
    const { code, info } = await tiedlora(...task, "--predictions", at("sums.jsonl"));
    assert.equal(code, 0, info);
    const [first] = lines(at("sums.jsonl"));
    assert.deepEqual(Object.keys(first!), ["prompt", "prediction", "references", "scores"]);
    assert.deepEqual(Object.keys(first!["scores"] as object), ["strict match", "flexible match"]);
    const own = await tiedlora(...task, "--metrics", "f1");
    assert.deepEqual([own.code, /--metrics: the task gsm8k has its own/.test(own.info)], [2, true]);
  });

  test("refuses metrics without prompts, and settings without metrics", async () => {
    writeFileSync(at("plain.txt"), "one line\nanother\n");
    const plain = await tiedlora(
      "eval",
      ...REFERENCE,
      "--data",
      at("plain.txt"),
      "--seq",
      "32",
      "--metrics",
      "f1",
    );
    assert.match(plain.info, /plain\.txt, line 1: there is no prompt/);
    const alone = await tiedlora(
      "eval",
      ...REFERENCE,
      "--data",
      at("plain.txt"),
      "--seq",
      "32",
      "--stop",
      "x",
    );
    assert.deepEqual([alone.code, /--stop belongs to --metrics/.test(alone.info)], [2, true]);
  });
});
