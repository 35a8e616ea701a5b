/** YAML files of settings for `train`, and of sweeps. They are parsed, and sweeps are expanded into runs. */
import { join } from "node:path";
import { readSettings } from "../../../packages/cli/src/settings.ts";
import { TRAIN_SETTINGS } from "../../../packages/cli/src/train-settings.ts";
import { expandSweep } from "../../../packages/experiments/src/sweep/expand.ts";
import { parseSweep } from "../../../packages/experiments/src/sweep/spec.ts";
import { sound, type Target, utf8 } from "../target.ts";

const RUN = `# Settings of: tiedlora train
model: ./model
data: ./train.jsonl
out: ./adapter # where it goes
method: tl6
rank: 8
alpha: 16.5
target: [q_proj, v_proj]
dropout: 0.1
steps: 200
lr: 1e-3
schedule: cosine
weight-decay: 0
clip: 1
pack: false
log: [jsonl]
seed: 0
`;

const RUNS = [
  RUN,
  RUN.replace("[q_proj, v_proj]", "qkv").replace("lr: 1e-3", "lr: &rate 0.001\nbeta1: 0.9"),
  RUN.replace("[q_proj, v_proj]", "/.*q_proj/"),
  "{model: a, data: b, rank: 3}\n",
];

const SWEEP = `name: try # of many
on: { model: base, tasks: [choice, translation] }
out: runs/try
search: grid
vary:
  method: &methods [lora, tl6, vera]
  rank: [2, 8]
  seed: [0, 1]
train:
  steps: 30
  lr: { default: 0.01, vera: 0.1 }
  schedule: cosine
evaluate: { every: 10, valid: 20 }
`;

export function runFiles(): Target {
  return {
    seed: (random) => new Map([["run.yaml", utf8(random.pick(RUNS))]]),
    onDisk: true,
    async read(_files, directory) {
      const settings = await readSettings(TRAIN_SETTINGS, join(directory, "run.yaml"));
      for (const [name, value] of Object.entries(settings))
        sound(typeof value !== "number" || Number.isFinite(value), `${name} is not finite`);
    },
    words: ["tl6", "lora", "qkv", "all-linear", "/(a+)+$/", "/(?=/", "cosine", "none"],
  };
}

export function sweeps(): Target {
  return {
    seed: (random) =>
      new Map([["sweep.yaml", utf8(random.pick([SWEEP, SWEEP.replace("grid", "{ random: 3, seed: 1 }")]))]]),
    read(files) {
      const spec = parseSweep(new TextDecoder().decode(files.get("sweep.yaml")), "sweep.yaml");
      const runs = expandSweep(spec);
      sound(runs.length > 0, "it has no runs");
      for (const run of runs)
        for (const [name, value] of Object.entries(run))
          sound(typeof value !== "number" || Number.isFinite(value), `${name} is not finite`);
      return Promise.resolve();
    },
    words: [
      "tl6",
      "choice",
      "grid",
      "{ random: 1000000000 }",
      `[${Array.from({ length: 3000 }, (_, i) => i + 1).join(", ")}]`,
    ],
  };
}
