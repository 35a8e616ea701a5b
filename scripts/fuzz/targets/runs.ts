/** The files that runs and sweeps leave behind: checkpoints, from which a run resumes, and results, from which reports are made. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reference } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";
import { adapt, type Adapter, methods } from "tiedlora";
import { lastState } from "../../../packages/cli/src/run/run-folder.ts";
import { restoreCheckpoint, saveCheckpoint } from "../../../packages/tiedlora/src/node/checkpoint.ts";
import { RunStore } from "../../../packages/experiments/src/node/sweep/store.ts";
import { runsCsv, summaryCsv } from "../../../packages/experiments/src/report/csv.ts";
import { reportHtml } from "../../../packages/experiments/src/report/html.ts";
import { summarize } from "../../../packages/experiments/src/report/summary.ts";
import { type RunResult, runId } from "../../../packages/experiments/src/sweep/config.ts";
import { expandSweep } from "../../../packages/experiments/src/sweep/expand.ts";
import { parseSweep } from "../../../packages/experiments/src/sweep/spec.ts";
import { lossOf, tinyLlama } from "../../../packages/tiedlora/test/support/tiny.ts";
import { type CaseFiles, sound, type Target, utf8 } from "../target.ts";

function filesIn(directory: string): CaseFiles {
  const names = readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((name) =>
    statSync(join(directory, name)).isFile(),
  );
  return new Map(
    names
      .sort()
      .map((name) => [name.replaceAll("\\", "/"), Uint8Array.from(readFileSync(join(directory, name)))]),
  );
}

interface Run {
  readonly adapter: Adapter;
  readonly optimizer: optim.Optimizer;
}

function newRun(): Run {
  const adapter = adapt(tinyLlama(reference()), methods.tl6({ rank: 2 }));
  return { adapter, optimizer: optim.adamW(adapter.trainableParameters(), { lr: 0.01 }) };
}

/** The folder of a run with two checkpoints. */
async function checkpointFiles(): Promise<CaseFiles> {
  const directory = mkdtempSync(join(tmpdir(), "fuzz-run-"));
  const run = newRun();
  for (const step of [1, 2]) {
    run.optimizer.step(lossOf(run.adapter.model as ReturnType<typeof tinyLlama>));
    const state = {
      step,
      tokens: 10 * step,
      best: { step, loss: 2 },
      sinceBest: 0,
      finished: step === 2,
      data: "abc",
    };
    await saveCheckpoint(join(directory, "checkpoints"), run, state, { base_model: "tiny" });
  }
  const files = filesIn(directory);
  rmSync(directory, { recursive: true });
  return files;
}

export async function checkpoints(): Promise<Target> {
  const files = await checkpointFiles();
  const run = newRun();
  return {
    seed: () => new Map(files),
    onDisk: true,
    async read(_files, directory) {
      const state = await lastState(directory);
      if (state === null) return;
      sound(
        Number.isSafeInteger(state.step) && Number.isFinite(state.tokens) && state.tokens >= 0,
        `it is at step ${state.step}, token ${state.tokens}`,
      );
      await restoreCheckpoint(join(directory, "checkpoints"), state.step, run);
      for (const [path, parameter] of run.adapter.stateDict())
        sound((await parameter.data()).every(Number.isFinite), `${path} is not finite`);
      const { tensors } = await run.optimizer.state();
      for (const [name, { values }] of tensors)
        sound(values.every(Number.isFinite), `${name} of the optimizer is not finite`);
    },
  };
}

const SWEEP = `
on: { model: base, tasks: [choice, translation] }
out: runs/try
vary: { method: [lora, tl6], rank: [2, 8] }
`;

const INJECTED = [
  "<script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "</script><script>alert(1)</script>",
  "<!--<script>",
];

function resultOf(config: RunResult["config"], seed: number): RunResult {
  return {
    id: runId(config),
    config,
    trainable: 100 + config.rank,
    total: 300,
    steps: config.steps,
    bestStep: Math.min(50, config.steps),
    curve: [[50, 2.5], [100, 2 + seed / 10]],
    valid: [[50, 2.6], [100, 2.1]],
    test: { count: 10, skipped: 1, loss: 2, perplexity: Math.exp(2), scores: { accuracy: 50 + seed, "exact match": 20 } },
    samples: [{ prompt: "a < b", text: "b & c", answer: "c" }],
    seconds: 12.5,
    tokensPerSecond: 1000,
    device: "cpu",
    note: seed % 2 === 0 ? null : "a part of train",
  }; // prettier-ignore
}

export function sweepResults(): Target {
  const configs = expandSweep(parseSweep(SWEEP, "sweep.yaml"));
  return {
    seed(random) {
      const results = configs.filter(() => random.chance(0.8)).map((config, i) => resultOf(config, i));
      const failed = configs
        .filter(() => random.chance(0.2))
        .map((config) => ({ id: runId(config), config, message: "it diverged" }));
      return new Map([
        ["sweep.yaml", utf8(SWEEP)],
        ...[resultOf(configs[0]!, 0), ...results].map((one): [string, Uint8Array] => [
          `runs/${one.id}.json`,
          utf8(JSON.stringify(one)),
        ]),
        ...failed.map((one): [string, Uint8Array] => [`failed/${one.id}.json`, utf8(JSON.stringify(one))]),
      ]);
    },
    onDisk: true,
    async read(_files, directory) {
      const store = new RunStore(directory);
      const [results, failures] = await Promise.all([store.finished(), store.failures()]);
      if (results.length === 0) return;
      const summary = summarize(results);
      const spec = await store.spec();
      const html = reportHtml(
        {
          title: "a sweep",
          results,
          failures,
          summary,
          spec,
          missing: [],
          leftOut: [],
          search: null,
          compared: null,
          samples: true,
        },
        { scripts: [], styles: [], digest: () => "" },
      );
      sound(!/<img|<script>alert|<!--/.test(html), "the report runs what was in a result");
      sound(!/>\s*(NaN|undefined|-?Infinity)/.test(html), "the report shows numbers that are none");
      sound(
        ![runsCsv(results), summaryCsv(summary)].some((csv) =>
          /(^|,)(undefined|\[object Object\])/m.test(csv),
        ),
        "a table has empty numbers",
      );
    },
    words: [...INJECTED, "lora", "none", "choice"],
  };
}
