/** Sweeps: a file is expanded to runs; each run is finished once, whatever happens to other runs or to the sweep. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { memoryFiles, reference } from "@tiedlora/core";
import { configFrom, createModel, loadTokenizerFrom } from "@tiedlora/models";
import fc from "fast-check";
import { document, tokenizerFiles, trainBpe } from "../../experiments/src/toy-tasks/index.ts";
import { methods } from "../../tiedlora/src/methods/index.ts";
import { runPool } from "../../experiments/src/node/sweep/pool.ts";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import { NO_FILES } from "../../experiments/src/node/tasks.ts";
import { countParameters } from "../../tiedlora/src/adapter/plan.ts";
import { BASELINE, type RunConfig, runId, type RunResult } from "../../experiments/src/sweep/config.ts";
import { expandSweep } from "../../experiments/src/sweep/expand.ts";
import { runOne } from "../../experiments/src/sweep/run.ts";
import type { ClaimedRun, Publication, RunSource } from "../../experiments/src/sweep/source.ts";
import { parseSweep } from "../../experiments/src/sweep/spec.ts";
import { tiedlora } from "./support/command.ts";
import { isRunning } from "./support/processes.ts";

const GRID = `name: small
on: { model: base, tasks: [choice, summary] }
out: runs/small
vary:
  method: [lora, tl6]
  rank: [2, 8]
  seed: [0, 1, 2]
train:
  steps: 30
  lr: { default: 0.01, tl6: 0.02 }
`;

test("a grid is every combination, the unadapted model once for each task", () => {
  const configs = expandSweep(parseSweep(GRID, "grid.yaml"));
  assert.equal(configs.length, 2 + 2 * 2 * 3 * 2);
  assert.deepEqual(
    configs.slice(0, 2).map(({ method, task }) => [method, task]),
    [
      [BASELINE, "choice"],
      [BASELINE, "summary"],
    ],
  );
  assert.equal(new Set(configs.map(runId)).size, configs.length);
  const runs = configs.slice(2);
  assert.ok(runs.slice(0, 8).every(({ seed }) => seed === 0)); // an early stop has something of everything
  for (const { method, lr, warmup, steps } of runs) {
    assert.deepEqual([lr, warmup, steps], [method === "tl6" ? 0.02 : 0.01, 20, 30]);
  }
});

test("ranks may be given by method", () => {
  const text = GRID.replace("rank: [2, 8]", "rank: { lora: 4, default: [8, 2] }");
  const spec = parseSweep(text.replace("tl6: 0.02", '"tl6:8": 0.02'), "grid.yaml");
  const runs = expandSweep(spec).slice(2);
  assert.deepEqual(
    runs.filter(({ task, seed }) => task === "choice" && seed === 1).map(({ method, rank, lr }) => [method, rank, lr]),
    [["tl6", 2, 0.01], ["lora", 4, 0.01], ["tl6", 8, 0.02]],
  ); // prettier-ignore
  assert.equal(runs.length, 2 * 3 * (1 + 2));
});

test("starts, options of methods, ranks that fall and moving averages vary, or are given for all; mistakes are named", () => {
  const grid = `name: settings
on: { model: base, tasks: [choice] }
out: runs/settings
vary: { method: [lora, ada-lora], rank: [4], ema: [0.9, 0.99] }
train:
  method-options: { ada-lora: { scaling: sqrt-rank } }
  rank-schedule: { rank: 2, warmup: 3 }
`;
  const runs = expandSweep(parseSweep(grid, "grid.yaml")).slice(1);
  const settings = runs.map(({ method, ema, methodOptions, rankSchedule }) => [method, ema, methodOptions?.["scaling"], rankSchedule?.rank]); // prettier-ignore
  assert.deepEqual(settings, [
    ["lora", 0.9, undefined, undefined],
    ["lora", 0.99, undefined, undefined],
    ["ada-lora", 0.9, "sqrt-rank", 2],
    ["ada-lora", 0.99, "sqrt-rank", 2],
  ]);
  assert.equal(new Set(runs.map(runId)).size, 4);
  const starts = grid.replace("[lora, ada-lora]", "[lora]").replace(/train:[^]*/, "").replace("ema: [0.9, 0.99]", "init: [eva, orthogonal]"); // prettier-ignore
  const started = expandSweep(parseSweep(`${starts}train: { ema: 0.5 }\n`, "grid.yaml"));
  assert.deepEqual(started.map(({ init, ema }) => [init, ema]), [[undefined, undefined], ["eva", 0.5], ["orthogonal", 0.5]]); // prettier-ignore
  const refused = (text: string, message: RegExp): void => {
    assert.throws(() => parseSweep(text, "grid.yaml"), { message });
  };
  refused(starts.replace("eva, orthogonal", "pissa"), /init pissa: .*not zero.*lora-residual/s);
  refused(starts.replace("eva, orthogonal", "loftq"), /loftq/);
  refused(grid.replace("0.99", "1"), /vary\.ema/);
  refused(grid.replace("rank: 2, warmup", "rank: 9, warmup"), /train\.rank-schedule ends at rank 9, above its start, rank 4/); // prettier-ignore
  refused(grid.replace("[lora, ada-lora]", "[lora]"), /vary\.method has no ada-lora/);
  refused(grid.replace("scaling", "scalings"), /train\.method-options\.ada-lora: .*did you mean "scaling"/);
});

test("what a baseline measures does not depend on what varies: it is not run again", () => {
  const id = (text: string): string => runId(expandSweep(parseSweep(text, "grid.yaml"))[0]!);
  assert.equal(id(GRID), id(GRID.replace("steps: 30", "steps: 60").replace("[0, 1, 2]", "[5]")));
  assert.notEqual(id(GRID), id(GRID.replace("model: base", "model: other")));
});

test("a random search takes so many of the grid, the same for the same seed", () => {
  const spec = (seed: number): string => `${GRID}search: { random: 5, seed: ${seed} }\n`;
  const ids = (seed: number): string[] =>
    expandSweep(parseSweep(spec(seed), "x"))
      .slice(2)
      .map(runId);
  const all = new Set(expandSweep(parseSweep(GRID, "x")).map(runId));
  assert.equal(ids(1).length, 5);
  assert.ok(ids(1).every((id) => all.has(id)));
  assert.deepEqual(ids(1), ids(1));
  assert.notDeepEqual(ids(1), ids(2));
});

test("one line changes the model, the tasks and the data", () => {
  const text = GRID.replace(
    /^on:.*$/m,
    "on: { model: ../m, tasks: [gsm8k, e2e], data: ../data, loss-only: true }",
  );
  const [first] = expandSweep(parseSweep(text, "grid.yaml"));
  assert.deepEqual(
    [first!.model, first!.task, first!.data, first!.lossOnly],
    ["../m", "gsm8k", "../data/gsm8k", true],
  );
});

const MISTAKES: readonly (readonly [from: string, to: string, message: RegExp])[] = [
  ["rank: [2, 8]", "ranks: [2, 8]", /grid\.yaml, line 6: there is no "ranks" in vary; did you mean "rank"\?/],
  [
    "method: [lora, tl6]",
    "method: [lora, tl66]",
    /line 5: vary\.method\.1: there is no method "tl66"; did you mean "tl6"\?/,
  ],
  ["rank: [2, 8]", "rank: [2, 0]", /line 6: vary\.rank\.1: expected a whole number of at least 1/],
  [
    "rank: [2, 8]",
    "rank: { tl5: 2, default: 8 }",
    /vary\.rank: vary\.method has no tl5; did you mean "tl6"\?/,
  ],
  ["rank: [2, 8]", "rank: { tl6: 2 }", /vary\.rank has no ranks for lora, and no default/],
  ["tl6: 0.02", '"tl6:4": 0.02', /train\.lr: "tl6:4" is for rank 4, and vary\.rank has 2, 8/],
  ["choice, summary", "choise", /line 2: on\.tasks\.0: there is no task "choise"; did you mean "choice"\?/],
  ["out: runs/small\n", "", /out: .*expected string/],
  ["steps: 30", "steps: many", /line 9: train\.steps: expected a whole number/],
  ["default: 0.01, ", "", /train\.lr has no rate for lora, and no default/],
  ["tl6: 0.02", "tl7: 0.02", /train\.lr: there is no method "tl7"/],
  [
    "[choice, summary]",
    "[squad]",
    /on\.data is missing: the task squad reads files; give the folder that has squad\//,
  ],
  [
    "seed:",
    "optimizer: adam\n  seed:",
    /vary\.optimizer\.0: there is no optimizer "adam"; did you mean "adamw"\?/,
  ],
  ["seed:", "loss: dpoo\n  seed:", /vary\.loss\.0: there is no loss "dpoo"; did you mean "dpo"\?/],
  [
    "seed:",
    "loss: dpo\n  seed:",
    /vary\.loss: dpo needs wrong answers beside the right ones, and summary has none/,
  ],
  [
    "seed:",
    "loss: distillation\n  seed:",
    /vary\.loss: distillation learns from another model, and none is given; give train\.teacher/,
  ],
  [
    "steps: 30",
    "steps: 30\n  teacher: base",
    /train\.teacher is given, and the loss is cross-entropy; it is for distillation/,
  ],
  ["seed:", "beta: [0.1]\n  seed:", /vary\.beta is given, and the loss is cross-entropy; it is for dpo, ipo/],
  ["seed:", "optimizer: sm3\n  beta1: 0.5\n  seed:", /vary\.beta1 is given, and sm3 has none/],
  [
    "steps: 30",
    "regularize: { l3: 1 }",
    /train\.regularize: there is no regularizer "l3"; did you mean "l[12]"\?/,
  ],
  [
    "tl6: 0.02",
    "lion: 0.02, tl6: 0.02",
    /a rate for the method tl6 and one for the optimizer lion, which meet/,
  ],
  ["vary:", "vary: [", /line \d+: not YAML/],
  ["lr: {", "lr: {{", /line \d+: /],
];

test("mistakes name the line, the key and the nearest valid name", () => {
  for (const [from, to, message] of MISTAKES) {
    assert.ok(GRID.includes(from), from);
    assert.throws(() => parseSweep(GRID.replace(from, to), "grid.yaml"), message);
  }
});

test("no text crashes the reader in another way than by its own error", () => {
  const lines = fc.array(
    fc.constantFrom(...GRID.split("\n"), "- 1", "a: b", "on: 3", "vary: [1]", "train: {}", "  x", "\t"),
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        lines.map((all) => all.join("\n")),
      ),
      (text) => {
        try {
          parseSweep(text, "f");
        } catch (error) {
          assert.equal((error as Error).name, "YamlError");
        }
      },
    ),
    { numRuns: 500 },
  );
});

const CONFIGS = expandSweep(parseSweep(GRID, "grid.yaml"));

const resultOf = (config: RunConfig): RunResult => ({
  id: runId(config), config, trainable: 1, total: 2, steps: 3, bestStep: 3, curve: [[1, 2]], valid: [], samples: [],
  test: { count: 1, skipped: 0, loss: 1, perplexity: Math.E, scores: { accuracy: 50 } },
  seconds: 1, tokensPerSecond: 1, device: "test", note: null,
}); // prettier-ignore

async function folder(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "tiedlora-sweep-"));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

test("the store gives back what was finished; a run that succeeds is no failure any more", async (t) => {
  const store = new RunStore(join(await folder(t), "deep", "er"));
  assert.deepEqual([await store.finished(), await store.failures()], [[], []]);
  await store.prepare(GRID);
  const [a, b] = CONFIGS as [RunConfig, RunConfig];
  await store.finish(resultOf(a));
  await store.fail({ id: runId(b), config: b, message: "no" });
  assert.deepEqual(
    (await store.finished()).map(({ id }) => id),
    [runId(a)],
  );
  assert.deepEqual(
    (await store.failures()).map(({ message }) => message),
    ["no"],
  );
  await store.finish(resultOf(b));
  assert.deepEqual([(await store.finished()).length, await store.failures()], [2, []]);
  await writeFile(join(store.directory, "runs", "zz.json"), "{");
  await assert.rejects(store.finished(), /zz\.json: found .*The file is damaged: delete it to run it again/);
});

/** A worker that does what the learning rate of its job says. */
const WORKER = `
import { writeFileSync } from "node:fs";
writeFileSync(new URL("./" + process.pid + ".pid", import.meta.url), "");
process.on("message", ({ job: { config } }) => {
  const say = (message) => process.send(message);
  say({ type: "step", step: 1, loss: 2 });
  if (config.lr === 1) return say({ type: "failed", message: "the loss is NaN" });
  if (config.lr === 2) process.kill(process.pid, "SIGKILL");
  if (config.lr === 3) process.exit(7);
  if (config.lr === 4) return; // never ends
  say({ type: "done", result: { id: "x", config, pid: process.pid } });
});
process.on("disconnect", () => process.exit());
`;

interface Ends {
  readonly publish?: () => Promise<Publication>;
  readonly release?: (config: RunConfig) => void;
}

/** The configs as a source that keeps nothing. */
function listed(configs: readonly RunConfig[], { publish, release }: Ends = {}): RunSource {
  const left = configs.map((config): ClaimedRun => ({
    config,
    checkpoint: null,
    lost: new AbortController().signal,
    publish: publish ?? (() => Promise.resolve({ counts: true, difference: null })),
    fail: () => Promise.resolve(true),
    release: () => Promise.resolve(release?.(config)),
  }));
  return { next: () => Promise.resolve(left.shift() ?? null) };
}

test("a run that fails, or takes its process with it, stops no other", async (t) => {
  const worker = join(await folder(t), "worker.mjs");
  await writeFile(worker, WORKER);
  const configs = [0, 1, 0, 2, 0, 3, 0, 0].map((lr, i) => ({ ...CONFIGS[2]!, lr, seed: i }));
  const done: number[] = [];
  const failed: string[] = [];
  let steps = 0;
  await runPool(listed(configs), {
    parallel: 2,
    backend: "cpu",
    threads: 1,
    worker,
    onStep: () => steps++,
    onDone: ({ config }) => void done.push(config.seed),
    onFailed: ({ config, message }) => void failed.push(`${config.lr}: ${message}`),
  });
  assert.deepEqual(
    done.sort((a, b) => a - b),
    [0, 2, 4, 6, 7],
  );
  assert.deepEqual(failed.sort(), [
    "1: the loss is NaN",
    "2: its process was ended by SIGKILL (out of memory?)",
    "3: its process ended with exit code 7",
  ]);
  assert.equal(steps, 8);
});

test("a sweep whose results cannot be kept ends its processes and says why", async (t) => {
  const directory = await folder(t);
  const worker = join(directory, "worker.mjs");
  await writeFile(worker, WORKER);
  const configs = [4, 0].map((lr, i) => ({ ...CONFIGS[2]!, lr, seed: i }));
  const full = (): Promise<never> => Promise.reject(new Error("the disk is full"));
  const pool = runPool(listed(configs, { publish: full }), {
    parallel: 2,
    backend: "cpu",
    threads: 1,
    worker,
    onFailed: () => assert.fail("nothing failed"),
  });
  await assert.rejects(pool, /the disk is full/);
  const processes = (await readdir(directory)).filter((name) => name.endsWith(".pid")).map((name) => parseInt(name)); // prettier-ignore
  assert.ok(processes.length > 0, "they were started");
  for (let i = 0; i < 200 && processes.some(isRunning); i++) await sleep(50);
  assert.deepEqual(processes.filter(isRunning), []);
});

test("a process is at its next run while the result of the last one is on its way, and the sweep waits for the last", async (t) => {
  const worker = join(await folder(t), "worker.mjs");
  await writeFile(worker, WORKER);
  const configs = [0, 1, 2].map((seed) => ({ ...CONFIGS[2]!, lr: 0, seed }));
  const started: (() => void)[] = [];
  const isStarted = configs.map((_, seed) => new Promise<void>((resolve) => (started[seed] = resolve)));
  const order: string[] = [];
  let published = 0;
  const publish = async (): Promise<Publication> => {
    await isStarted[++published]; // the run behind this one
    return { counts: true, difference: null };
  };
  await runPool(listed(configs, { publish }), {
    parallel: 1,
    backend: "cpu",
    threads: 1,
    worker,
    onStart: ({ seed }) => {
      order.push(`start ${seed}`);
      started[seed]!();
    },
    onDone: ({ config }) => void order.push(`done ${config.seed}`),
  });
  assert.deepEqual(order, ["start 0", "start 1", "done 0", "start 2", "done 1", "done 2"]);
});

test("an interrupted sweep ends its processes and reports nothing as failed", async (t) => {
  const worker = join(await folder(t), "worker.mjs");
  await writeFile(worker, WORKER);
  const interrupt = new AbortController();
  const configs = [4, 4, 0].map((lr, i) => ({ ...CONFIGS[2]!, lr, seed: i }));
  const given: number[] = [];
  const release = (config: RunConfig): void => void given.push(config.seed);
  await runPool(listed(configs, { release }), {
    parallel: 2,
    backend: "cpu",
    threads: 1,
    worker,
    signal: interrupt.signal,
    onStep: () => interrupt.abort(),
    onDone: () => assert.fail("nothing was done"),
    onFailed: () => assert.fail("nothing failed"),
  });
  assert.deepEqual(
    given.sort((a, b) => a - b),
    [0, 1],
    "the runs are given back",
  );
});

test("a run trains, measures the best factors, and leaves the model as it was", async () => {
  const texts = Array.from({ length: 60 }, (_, i) => document(1, i));
  const { tokenizer, config: tokenizerConfig } = tokenizerFiles(trainBpe(texts, 300), 128);
  const model = createModel(
    configFrom({
      model_type: "llama", hidden_size: 8, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
      num_key_value_heads: 2, vocab_size: 300, max_position_embeddings: 160, tie_word_embeddings: true,
      initializer_range: 0.2, bos_token_id: 1, eos_token_id: 2,
    }), // prettier-ignore
    { device: reference(), seed: 3 },
  );
  const files = new Map([
    ["tokenizer.json", JSON.stringify(tokenizer)],
    ["tokenizer_config.json", JSON.stringify(tokenizerConfig)],
  ]);
  const context = {
    model,
    tokenizer: await loadTokenizerFrom(memoryFiles(files)),
    padId: 0,
    source: NO_FILES,
  };
  const config: RunConfig = {
    ...CONFIGS.at(-1)!, task: "arithmetic", target: "qkv", method: "tl6", rank: 2, steps: 6, warmup: 1, batch: 4, seq: 120, lr: 0.05, every: 2,
    examples: { train: 12, valid: 4, test: 3 },
  }; // prettier-ignore
  const loss = async (): Promise<number> => model.loss({ inputIds: [[1, 5, 9, 30, 77]] }).item();
  const before = await loss();
  const seen: number[] = [];
  const result = (await runOne(config, { ...context, onStep: (step) => seen.push(step) })) as RunResult;
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6]);
  assert.equal(await loss(), before);
  assert.equal(result.id, runId(config));
  assert.deepEqual([result.steps, result.valid.map(([step]) => step)], [6, [2, 4, 6]]);
  assert.deepEqual([result.test.count, Object.keys(result.test.scores)], [3, ["result", "accuracy"]]);
  const lowest = Math.min(...result.valid.map(([, value]) => value));
  assert.equal(result.valid.find(([step]) => step === result.bestStep)![1], lowest);
  const linears = Array.from({ length: 2 }, (_, i) =>
    ["q_proj", "k_proj", "v_proj"].map((name) => ({
      path: `model.layers.${i}.self_attn.${name}`,
      in: 8,
      out: 8,
    })),
  ).flat();
  assert.equal(result.trainable, countParameters(linears, methods.tl6({ rank: 2 })).trainable);
  // The same config again is the same run.
  const again = (await runOne(config, context)) as RunResult;
  assert.deepEqual([again.curve, again.valid, again.test], [result.curve, result.valid, result.test]);
  // One validation without a lower loss is enough to stop; at a rate of almost nothing the second is no lower.
  const patient = await runOne(
    { ...config, lr: 1e-30, schedule: "constant", patience: 1, steps: 12 },
    context,
  );
  assert.equal(patient.steps, 4);
  // Another loss and optimizer train on pairs of a right and a wrong answer; what is validated stays comparable.
  const preferring = {
    ...config,
    task: "choice",
    loss: "dpo",
    optimizer: "lion",
    lr: 1e-3,
    steps: 4,
  } as const;
  const preferred = (await runOne(preferring, context)) as RunResult;
  assert.ok(Math.abs(preferred.curve[0]![1] - Math.LN2) < 1e-6, "DPO begins at log 2");
  const plain = await runOne({ ...preferring, loss: undefined, lr: 1e-30 }, context);
  assert.ok(Math.abs(preferred.valid[0]![1] - plain.valid[0]![1]) < 1, "validated by cross-entropy");
  const baseline = await runOne({ ...config, method: BASELINE, rank: 0, steps: 0 }, context);
  assert.deepEqual([baseline.trainable, baseline.steps, baseline.curve], [0, 0, []]);
  assert.equal(await loss(), before);
  model.device.close();
});

test("what a killed process was writing is removed, what another is writing is not", async (t) => {
  const store = new RunStore(await folder(t));
  await store.prepare(GRID);
  const runs = join(store.directory, "runs");
  const ended = spawnSync(process.execPath, ["--version"]).pid;
  for (const pid of [ended, process.ppid]) await writeFile(join(runs, `.a.json.${pid}-0.tmp`), "{");
  await store.prepare(GRID);
  assert.deepEqual(await readdir(runs), [`.a.json.${process.ppid}-0.tmp`]);
});

test("a model that is not there, or knows too few positions, is found out before any run", async (t) => {
  const directory = await folder(t);
  const file = join(directory, "grid.yaml");
  const refused = async (from: string, to: string): Promise<string> => {
    await writeFile(file, GRID.replace(from, to));
    const { code, info } = await tiedlora("sweep", file, "--out", join(directory, "out"));
    assert.equal(code, 2, info);
    return info;
  };
  assert.match(
    await refused("model: base", `model: ${directory}/none`),
    /on\.model .*none: there is no such/,
  );
  assert.match(
    await refused("summary]", "summary], seq: 129"),
    /on\.seq 129: the model knows 128 positions .*; give at most on\.seq 128/,
  );
  assert.ok(!existsSync(join(directory, "out")), "nothing was written");
});

test("a sweep's folder holds nothing but its own files", async (t) => {
  const store = new RunStore(await folder(t));
  await store.prepare(GRID);
  await store.finish(resultOf(CONFIGS[0]!));
  assert.deepEqual((await readdir(store.directory)).sort(), ["failed", "runs", "sweep.yaml"]);
  assert.deepEqual(await readdir(join(store.directory, "runs")), [`${runId(CONFIGS[0]!)}.json`]);
});
