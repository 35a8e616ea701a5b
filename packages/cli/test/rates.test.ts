/** The table of learning rates: one for the library, the command line, sweeps and the page; it says what was measured. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import {
  DEFAULT_LEARNING_RATE,
  defineMethod,
  init,
  LEARNING_RATES,
  METHOD_NAMES,
  methodByName,
  OPTIMIZER_RATES,
  type MethodName,
  type MethodSpec,
  tiedLora,
} from "tiedlora";
import { methodFromRecipe } from "../../tiedlora/src/methods/rebuild.ts";
import { BASELINE, type RunConfig } from "../../experiments/src/sweep/config.ts";
import { expandSweep } from "../../experiments/src/sweep/expand.ts";
import { parseSweep } from "../../experiments/src/sweep/spec.ts";
import { DEFAULT_TARGET } from "../src/train-settings.ts";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const runsOf = (text: string): RunConfig[] =>
  expandSweep(parseSweep(text, "sweep.yaml")).filter(({ method }) => method !== BASELINE);

suite("the table of learning rates", () => {
  test("is that of the documentation", () => {
    const page = readFileSync(join(import.meta.dirname, "../../../docs/paper-grid.md"), "utf8");
    const rows = page.split("## Recommended rates")[1]!.match(/^\| `.*$/gm)!;
    const documented = rows.flatMap((row): [string, number][] => {
      const [, names, rate] = row.split("|");
      return names!.match(/[\w-]+/g)!.map((name) => [name, Number(rate)]);
    });
    assert.equal(documented.length, 23);
    for (const [name, rate] of documented) assert.equal(LEARNING_RATES[name as MethodName], rate, name);
  });

  test("is what every method of the library carries, at any rank, and after it was in a file", () => {
    for (const name of METHOD_NAMES) {
      for (const rank of [2, 64]) {
        const method = methodByName(name, { rank });
        assert.equal(method.learningRate, LEARNING_RATES[name], name);
        assert.equal(methodFromRecipe(method.recipe, "adapter").learningRate, LEARNING_RATES[name], name);
      }
    }
  });

  test("holds for a member of the family that trains the same factors, in any order", () => {
    assert.equal(tiedLora({ trained: ["u", "v"] }).learningRate, LEARNING_RATES.vera);
    assert.equal(tiedLora({ trained: ["A", "v"], tied: { blocks: 2 } }).learningRate, LEARNING_RATES.tl2);
    assert.equal(tiedLora({ trained: ["v", "u", "A"] }).learningRate, DEFAULT_LEARNING_RATE);
  });

  test("is multiplied by what a sweep gives for factors, and a run without such settings keeps its name", () => {
    const text = "on: { tasks: choice }\nout: x\nvary: { method: lora, rank: 2";
    const [plain] = runsOf(`${text} }\n`);
    const varied = runsOf(
      `${text}, lora-plus: [4, 16] }\ntrain: { rates: { q_proj: 0.5 }, decays: { B: 0 } }\n`,
    );
    assert.deepEqual(
      varied.map(({ loraPlus, rates, decays }) => [loraPlus, rates, decays]),
      [4, 16].map((ratio) => [ratio, { q_proj: 0.5 }, { B: 0 }]),
    );
    assert.ok(plain !== undefined && !("loraPlus" in plain) && !("rates" in plain) && !("decays" in plain));
    assert.throws(() => runsOf(`${text} }\ntrain: { rates: 3 }\n`), {
      message: /line 4.*train\.rates: expected numbers/s,
    });
  });

  test("suits the optimizers of a sweep, each of which takes the options that it has, as each loss does", () => {
    const text = (rest: string): string =>
      `on: { tasks: choice }\nout: x\nvary: { method: lora, rank: 2, ${rest} }\n`;
    const found = (rest: string, ...keys: (keyof RunConfig)[]): unknown[] =>
      runsOf(text(rest)).map((config) => keys.map((key) => config[key]));
    assert.deepEqual(
      found("optimizer: [adamw, lion, sgd], beta1: [0.8, 0.9]", "optimizer", "lr", "beta1", "weightDecay"),
      [
        [undefined, LEARNING_RATES.lora, 0.8, 0.01],
        [undefined, LEARNING_RATES.lora, 0.9, 0.01],
        ["lion", LEARNING_RATES.lora * OPTIMIZER_RATES.lion, 0.8, 0.01],
        ["lion", LEARNING_RATES.lora * OPTIMIZER_RATES.lion, 0.9, 0.01],
        ["sgd", LEARNING_RATES.lora * OPTIMIZER_RATES.sgd, undefined, 0],
      ],
    );
    assert.deepEqual(found("optimizer: [adamw, lion], lr: { lion: [1, 2], default: 3 }", "optimizer", "lr"), [
      [undefined, 3],
      ["lion", 1],
      ["lion", 2],
    ]);
    assert.deepEqual(
      found(
        "loss: [cross-entropy, dpo, kto], beta: [0.1, 1], label-smoothing: 0.1",
        "loss",
        "beta",
        "labelSmoothing",
      ),
      [
        [undefined, undefined, 0.1],
        ["dpo", 0.1, 0.1],
        ["dpo", 1, 0.1],
        ["kto", 0.1, undefined],
        ["kto", 1, undefined],
      ],
    );
  });

  test("gives a sweep that names no rate each method's own", () => {
    const text = "on: { tasks: choice }\nout: x\nvary: { method: [lora, vera, tl6], rank: 2 }\n";
    assert.deepEqual(
      runsOf(text).map(({ method, lr }) => [method, lr]),
      (["lora", "vera", "tl6"] as const).map((name) => [name, LEARNING_RATES[name]]),
    );
  });
});

test("a sweep that names no target adapts what train does", () => {
  const [run] = runsOf("on: { tasks: choice }\nout: x\nvary: { method: lora, rank: 2 }\n");
  assert.equal(run!.target, DEFAULT_TARGET);
});

suite("a method of one's own", () => {
  const spec: MethodSpec<"A" | "B"> = {
    name: "own",
    factors: {
      A: { shape: ["rank", "in"], init: init.normal() },
      B: { shape: ["out", "rank"], init: init.zeros() },
    },
    lowRank: ({ A, B }) => ({ A, B }),
  };

  test("carries the rate of its declaration, or the default", () => {
    assert.equal(defineMethod({ ...spec, learningRate: 0.004 }).learningRate, 0.004);
    assert.equal(defineMethod(spec).learningRate, DEFAULT_LEARNING_RATE);
  });

  test("is refused with a rate that is none", () => {
    for (const learningRate of [0, -1, NaN, Infinity]) {
      assert.throws(() => defineMethod({ ...spec, learningRate }), {
        name: "RangeError",
        message: `own: learningRate ${learningRate} given; expected a finite number above 0`,
      });
    }
  });
});

test("train takes the method's rate where none is given, and keeps it with the run", async () => {
  const folder = temporary();
  await writeModel(join(folder, "model"));
  writeExamples(join(folder, "train.jsonl"));
  const train = async (out: string, ...more: string[]): Promise<string> => {
    const given = ["--model", join(folder, "model"), "--data", join(folder, "train.jsonl")];
    const small = "--steps 2 --batch 2 --seq 32 --rank 2 --warmup 0 --backend reference --json".split(" ");
    const result = await tiedlora("train", ...given, "--out", join(folder, out), ...small, ...more);
    assert.equal(result.code, 0, result.info);
    const [first] = result.out.split("\n").map((line) => JSON.parse(line) as { lr: number });
    return `${first!.lr}, ${/^lr: .*/m.exec(readFileSync(join(folder, out, "run.yaml"), "utf8"))?.[0]}`;
  };
  assert.equal(await train("vera", "--method", "vera"), "0.1, lr: 0.1");
  assert.equal(await train("lora", "--method", "lora"), "0.01, lr: 0.01");
  assert.equal(await train("given", "--method", "lora", "--lr", "0.005"), "0.005, lr: 0.005");
  const betas = (out: string): string[] => readFileSync(join(folder, out, "run.yaml"), "utf8").match(/^beta.: .*/gm) ?? []; // prettier-ignore
  assert.deepEqual(betas("given"), ["beta1: 0.9", "beta2: 0.98"]);
  await train("lion", "--method", "lora", "--optimizer", "lion", "--beta1", "0.8");
  assert.deepEqual(betas("lion"), ["beta1: 0.8", "beta2: 0.99"]);
  await train("sgd", "--method", "lora", "--optimizer", "sgd");
  assert.deepEqual(betas("sgd"), []);
  const refused = await tiedlora(
    ..."train --model model --data data --out out --optimizer sgd --beta2 0.9".split(" "),
  );
  assert.equal(refused.code, 2);
  assert.match(refused.info, /--beta2 is given, and --optimizer is sgd; it is for adamw, lion, muon/);
});
