/** Tasks: data sets' own files give the prompts (the paper's, where it has some); splits do not overlap; answers are judged. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { memoryFiles, reference } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { configFrom, createModel, loadTokenizerFrom, type Tokenizer } from "@tiedlora/models";
import { type TextFile, textOf } from "../../tiedlora/src/data/text.ts";
import { document, tokenizerFiles, trainBpe } from "../src/toy-tasks/index.ts";
import { directorySource, NO_FILES } from "../src/node/tasks.ts";
import { logLikelihoods } from "../src/tasks/evaluate.ts";
import {
  defineTask,
  evaluateTask,
  firstQuestions,
  type Question,
  runSplits,
  TASKS,
  taskByName,
  taskMetrics,
  type TaskSource,
  trainingTexts,
} from "../src/tasks/index.ts";
import { SHARED, without } from "../../../test/support/shared.ts";

/** A source of files by name, which are read in pieces of a few characters. */
function memorySource(files: Readonly<Record<string, string>>): TaskSource {
  const open = (name: string): TextFile => ({
    name,
    async *pieces() {
      const text = files[name] ?? assert.fail(`no file ${name}`);
      for (let at = 0; at < text.length; at += 7) yield await Promise.resolve(text.slice(at, at + 7));
    },
  });
  return {
    name: "memory",
    list: () => Promise.resolve(Object.keys(files)),
    open: (name) => Promise.resolve(open(name)),
  };
}

async function all(questions: AsyncIterable<Question>): Promise<Question[]> {
  return firstQuestions(questions, Infinity);
}

test("SQuAD: context and question as in the paper, every answer counts", async () => {
  const file = {
    version: "1.1",
    data: [
      {
        title: "T",
        paragraphs: [
          {
            context: "Zoë lives in Köln.",
            qas: [
              {
                id: "1",
                question: " Where does Zoë live?",
                answers: [{ text: "Köln" }, { text: "in Köln" }],
              },
            ],
          },
        ],
      },
    ],
  };
  const source = memorySource({ "dev-v1.1.json": JSON.stringify(file) });
  assert.deepEqual(await all(taskByName("squad").questions("valid", source)), [
    {
      prompt: "Context: Zoë lives in Köln. Question: Where does Zoë live? Answer:",
      answers: ["Köln", "in Köln"],
    },
  ]);
  await assert.rejects(
    all(taskByName("squad").questions("train", source)),
    /memory: squad needs a file whose name matches .* for "train"; the directory has dev-v1\.1\.json/,
  );
  await assert.rejects(
    all(taskByName("squad").questions("test", source)),
    /no "test" split, only train, valid/,
  );
});

test("SQuAD: what is wrong with a file is said", async () => {
  const read = (text: string): Promise<Question[]> =>
    all(taskByName("squad").questions("valid", memorySource({ "dev-v1.1.json": text })));
  await assert.rejects(read("{"), /dev-v1\.1\.json: the file is not JSON/);
  await assert.rejects(read("[]"), /dev-v1\.1\.json: found \[\]; expected an object/);
  await assert.rejects(read('{"data": 3}'), /"data" is 3; expected a list/);
  await assert.rejects(
    read('{"data": [{"paragraphs": [{"qas": [{}], "context": null}]}]}'),
    /"context" is null; expected text/,
  );
});

test("DialogSum: one summary, or numbered ones", async () => {
  const source = memorySource({
    "dialogsum.dev.jsonl": '{"dialogue": "#Person1#: Hi.\\n#Person2#: Bye.", "summary": "They meet."}\n',
    "dialogsum.test.jsonl":
      '{"dialogue": "x", "summary1": "a", "topic1": "t", "summary2": "b", "summary3": "c"}\n',
  });
  const { questions } = taskByName("dialogsum");
  assert.deepEqual(await all(questions("valid", source)), [
    { prompt: "Dialogue: #Person1#: Hi.\n#Person2#: Bye. Summary:", answers: ["They meet."] },
  ]);
  assert.deepEqual((await all(questions("test", source)))[0]!.answers, ["a", "b", "c"]);
  const bad = memorySource({ "dialogsum.dev.jsonl": '{"dialogue": "x"}\n' });
  await assert.rejects(all(questions("valid", bad)), /dialogsum\.dev\.jsonl, line 1: "summary1" is missing/);
});

test("HellaSwag: by number as in the paper, and by likelihood without WikiHow's marks", async () => {
  const item = {
    activity_label: "Canoeing",
    ctx: "Two women sit. [header] They",
    endings: ["paddle [step] on.", "sleep.", "fly.", "sing  loud."],
    label: 3,
  };
  const { questions } = taskByName("hellaswag");
  const [question] = await all(
    questions("valid", memorySource({ "hellaswag_val.jsonl": JSON.stringify(item) })),
  );
  assert.deepEqual(question, {
    prompt:
      "Text: Two women sit. [header] They Endings: 1:paddle [step] on. 2:sleep. 3:fly. 4:sing  loud. Answer:",
    answers: ["4"],
    wrong: ["1", "2", "3"],
    choice: {
      context: "Canoeing: Two women sit. They",
      endings: ["paddle on.", "sleep.", "fly.", "sing loud."],
      right: 3,
    },
  });
  const bad = memorySource({ "hellaswag_val.jsonl": JSON.stringify({ ...item, label: 4 }) });
  await assert.rejects(all(questions("valid", bad)), /line 1: label 4 of 4 endings/);
});

test("IWSLT: segments of the XML, entities replaced, both sides of equal length", async () => {
  const xml = (segments: string[]): string =>
    `<?xml version="1.0"?>\n<mteval><srcset><doc docid="1"><title>no</title>\n` +
    `${segments.map((text, i) => `<seg id="${i + 1}"> ${text} </seg>`).join("\n")}</doc></srcset></mteval>`;
  const name = (language: string): string => `IWSLT17.TED.dev2010.en-de.${language}.xml`;
  const { questions } = taskByName("iwslt2017");
  const source = memorySource({
    [name("en")]: xml(["Tea &amp; milk", "&lt;3 &#x1F600;"]),
    [name("de")]: xml(["Tee &amp; Milch", "&quot;ja&quot; &#228; &unknown;"]),
  });
  assert.deepEqual(await all(questions("valid", source)), [
    { prompt: "English: Tea & milk German:", answers: ["Tee & Milch"] },
    { prompt: "English: <3 😀 German:", answers: ['"ja" ä &unknown;'] },
  ]);
  const uneven = memorySource({ [name("en")]: xml(["a"]), [name("de")]: xml(["a", "b"]) });
  await assert.rejects(all(questions("valid", uneven)), /de\.xml: 2 segments, but 1 in IWSLT.*en\.xml/);
});

test("Multi30k: parallel lines, packed or not", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "tiedlora-tasks-"));
  t.after(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, "val.en.gz"), gzipSync("A dog.\nTwo cats.\n"));
  await writeFile(join(directory, "val.de"), "Ein Hund.\r\nZwei Katzen.\r\n");
  const { questions } = taskByName("multi30k");
  const source = directorySource(directory);
  assert.deepEqual(
    (await all(questions("valid", source))).map(({ prompt, answers }) => [prompt, ...answers]),
    [
      ["English: A dog. German:", "Ein Hund."],
      ["English: Two cats. German:", "Zwei Katzen."],
    ],
  );
  await writeFile(join(directory, "val.en.gz"), gzipSync("A dog.\nTwo cats.\n").subarray(0, 20));
  await assert.rejects(all(questions("valid", source)), /val\.en\.gz: cannot be unpacked/);
  await assert.rejects(
    all(questions("valid", directorySource(join(directory, "x")))),
    /there is no such directory/,
  );
});

test("E2E: rows of one meaning are one question; training sees each text", async () => {
  const rows = ["mr,ref", '"name[A], food[é]",One.', '"name[A], food[é]","Two, too."', "name[B],Three."].join(
    "\r\n",
  );
  const task = taskByName("e2e");
  const found = await all(task.questions("valid", memorySource({ "devset.csv": rows })));
  assert.deepEqual(found, [
    { prompt: "Meaning: name[A], food[é] Text:", answers: ["One.", "Two, too."] },
    { prompt: "Meaning: name[B] Text:", answers: ["Three."] },
  ]);
  assert.deepEqual(
    trainingTexts(task, found[0]!).map(({ completion }) => completion),
    ["One.", "Two, too."],
  );
  assert.equal(trainingTexts(taskByName("squad"), found[0]!).length, 1);
});

const SIZES: readonly (readonly [
  task: string,
  split: "train" | "valid" | "test",
  folder: string,
  count: number,
])[] = [
  ["squad", "valid", "squad", 10_570],
  ["squad", "train", "squad", 11_877],
  ["dialogsum", "test", "dialogsum", 500],
  ["hellaswag", "valid", "hellaswag", 10_042],
  ["iwslt2017", "valid", "iwslt2017", 888],
  ["iwslt2017", "test", "iwslt2017", 1568],
  ["multi30k", "valid", "multi30k", 1014],
  ["multi30k", "test", "multi30k", 1000],
  ["gsm8k", "test", "gsm8k", 1319],
  ["gsm8k", "train", "gsm8k", 7473],
  ["e2e", "valid", "e2e", 547],
  ["e2e", "test", "e2e", 630],
];
for (const [name, split, folder, count] of SIZES) {
  test(`${name}: the ${split} files as they are published`, { skip: without(`data/${folder}`) }, async () => {
    const questions = await all(
      taskByName(name).questions(split, directorySource(join(SHARED, "data", folder))),
    );
    assert.equal(questions.length, count);
    for (const { prompt, answers } of questions) {
      assert.match(prompt, /\S:$/);
      assert.ok(answers.length > 0 && answers.every((answer) => answer.trim() !== ""), prompt);
    }
  });
}

test("a data set without training files is divided, and its parts share no question", async () => {
  const lines = Array.from({ length: 300 }, (_, i) => JSON.stringify({ ...HELLASWAG, ctx: `Scene ${i}.` }));
  const source = memorySource({ "hellaswag_val.jsonl": lines.join("\n") });
  const limits = { train: 1000, valid: 1000, test: 1000 };
  const { train, valid, test: held, note } = await runSplits(taskByName("hellaswag"), source, limits);
  assert.equal(train.length + valid.length + held.length, 300);
  assert.equal(new Set([...train, ...valid, ...held].map(({ prompt }) => prompt)).size, 300);
  assert.ok(train.length > 200 && valid.length > 10 && held.length > 10);
  assert.match(note ?? "", /no training files; the validation set is divided, for the test too/);
});

test("a data set with test files, but without training files, trains on all that is not for validation", async () => {
  const task = defineTask({
    name: "scenes",
    title: "scenes",
    metrics: [taskMetrics.EXACT_MATCH],
    maxTokens: 4,
    files: { train: [/^train$/], valid: [/^valid$/], test: [/^test$/] },
    async *read(file) {
      let text = "";
      for await (const piece of file.pieces()) text += piece;
      for (const prompt of text.split("\n")) yield { prompt, answers: ["?"] };
    },
  });
  const valid = Array.from({ length: 300 }, (_, i) => `Scene ${i}`).join("\n");
  const limits = { train: 1000, valid: 1000, test: 1000 };
  const splits = await runSplits(task, memorySource({ valid, test: "Another scene" }), limits);
  assert.equal(splits.train.length + splits.valid.length, 300);
  assert.ok(splits.valid.length > 10 && splits.train.length > 250);
  assert.deepEqual(
    [splits.test.length, splits.note],
    [1, "scenes: no training files; the validation set is divided"],
  );
});
const HELLASWAG = { activity_label: "A", ctx: "", endings: ["a", "b"], label: 0 };

test("splits: limits hold, and a missing one is made up for with a word about it", async () => {
  const line = (i: number): string => JSON.stringify({ question: `Q${i}?`, answer: `#### ${i}` });
  const source = memorySource({ "train.jsonl": [1, 2, 3].map(line).join("\n"), "test.jsonl": line(9) });
  const splits = await runSplits(taskByName("gsm8k"), source, { train: 2, valid: 5, test: 5 });
  assert.deepEqual([splits.train.length, splits.valid.length, splits.test.length], [2, 1, 1]);
  assert.match(splits.note ?? "", /no validation files; the test set serves as both/);
  const gym = await runSplits(taskByName("choice"), NO_FILES, { train: 7, valid: 3, test: 0 });
  assert.deepEqual([gym.train.length, gym.valid.length, gym.test.length, gym.note], [7, 3, 0, null]);
});

test("a task of one's own is one declaration; names are unique, a wrong one gets the nearest", async () => {
  const task = defineTask({
    name: "capitals",
    title: "name the capital",
    metrics: [taskMetrics.EXACT_MATCH],
    maxTokens: 4,
    files: { train: [/^capitals\.txt$/] },
    async *read(file) {
      for await (const piece of textOf(file)) {
        for (const line of piece.split("\n")) yield { prompt: `Capital of ${line}:`, answers: ["?"] };
      }
    },
  });
  const source = memorySource({ "capitals.txt": "France" });
  assert.equal((await all(task.questions("train", source)))[0]!.prompt, "Capital of France:");
  assert.equal(new Set(TASKS.map(({ name }) => name)).size, TASKS.length);
  assert.throws(
    () => taskByName("hellswag"),
    /no task "hellswag" \(did you mean "hellaswag"\?\); there are extraction/,
  );
});

async function tinyModel(): Promise<{
  model: ReturnType<typeof createModel>;
  tokenizer: Tokenizer;
  padId: number;
}> {
  const texts = Array.from({ length: 60 }, (_, i) => document(1, i));
  const { tokenizer, config } = tokenizerFiles(trainBpe(texts, 300), 128);
  const files = new Map([
    ["tokenizer.json", JSON.stringify(tokenizer)],
    ["tokenizer_config.json", JSON.stringify(config)],
  ]);
  const model = createModel(
    configFrom({
      model_type: "llama", hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
      num_key_value_heads: 2, vocab_size: 300, max_position_embeddings: 128, rms_norm_eps: 1e-5, rope_theta: 10_000,
      hidden_act: "silu", tie_word_embeddings: true, initializer_range: 0.3, bos_token_id: 1, eos_token_id: 2,
    }), // prettier-ignore
    { device: reference(), seed: 3 },
  );
  return { model, tokenizer: await loadTokenizerFrom(memoryFiles(files)), padId: 0 };
}

test("log-likelihoods are those of each ending alone", async () => {
  const tiny = await tinyModel();
  const { model, tokenizer } = tiny;
  const choice = {
    context: "The dog is",
    endings: ["in the barn.", "red.", "a very old friend of Mia"],
    right: 0,
  };
  const values = await logLikelihoods(tiny, choice);
  for (const [i, ending] of choice.endings.entries()) {
    const before = tokenizer.encode(choice.context).length;
    const ids = tokenizer.encode(`${choice.context} ${ending}`);
    const logits = model.forward([ids.slice(0, -1)]);
    const targets = model.device.tensor([ids.slice(1)], { dtype: "i32" });
    const mask = model.device.tensor([ids.slice(1).map((_, t) => (t + 1 >= before ? 1 : 0))]);
    const mean = await nn.crossEntropy(logits, targets, { mask }).item();
    const expected = -mean * (ids.length - before);
    assert.ok(
      Math.abs(values[i]! - expected) < 1e-6 * Math.abs(expected),
      `${ending}: ${values[i]} ${expected}`,
    );
  }
  model.device.close();
});

test("an evaluation asks what fits, counts what does not, and scores every metric of the task", async () => {
  const tiny = await tinyModel();
  const source = memorySource({
    "hellaswag_val.jsonl": JSON.stringify({ ...HELLASWAG, ctx: "The dog barks." }),
  });
  const task = taskByName("hellaswag");
  const [question] = await all(task.questions("valid", source));
  const long = { ...question!, prompt: `${"word ".repeat(200)}:` };
  const result = await evaluateTask(task, tiny, [long, question!, question!], { maxLength: 64 });
  assert.deepEqual([result.count, result.skipped, result.texts.length], [2, 1, 2]);
  assert.deepEqual(Object.keys(result.scores), ["accuracy", "acc", "acc_norm"]);
  assert.ok(Object.values(result.scores).every((score) => score === 0 || score === 100)); // one question, twice
  assert.ok(Math.abs(result.perplexity - Math.exp(result.loss)) < 1e-9 && result.loss > 1);
  const quick = await evaluateTask(task, tiny, [question!], { maxLength: 64, lossOnly: true });
  assert.deepEqual([Object.keys(quick.scores), quick.texts], [["acc", "acc_norm"], []]);
  await assert.rejects(
    evaluateTask(task, tiny, [long], { maxLength: 64 }),
    /none of 1 questions of hellaswag fits into 64/,
  );
  tiny.model.device.close();
});
