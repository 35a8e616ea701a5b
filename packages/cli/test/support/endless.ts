/** Trainings and sweeps that run until they are stopped, on a tiny model in a temporary folder. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporary, writeExamples, writeModel, writeSums } from "./model-directory.ts";

export interface Endless {
  /** A path in the folder. */
  readonly at: (...names: string[]) => string;
  /** Arguments of a training into `out`; its model is at("model"), its data at("train.jsonl"). */
  readonly training: (out: string, ...more: string[]) => string[];
  /** Arguments of a sweep into `out`, which varies `vary` and trains each of its runs for `steps`. */
  readonly sweep: (out: string, vary: string, steps: number) => string[];
}

export async function endless(): Promise<Endless> {
  const folder = temporary();
  const at = (...names: string[]): string => join(folder, ...names);
  await writeModel(at("model"));
  writeExamples(at("train.jsonl"));
  writeSums(at("data"));
  return {
    at,
    training: (out, ...more) => [
      "train",
      ...`--model ${at("model")} --data ${at("train.jsonl")} --out ${at(out)} --seq 32 --rank 2`.split(" "),
      ..."--backend reference --steps 100000".split(" "),
      ...more,
    ],
    sweep: (out, vary, steps) => {
      const file = at(`${out}.yaml`);
      writeFileSync(
        file,
        `on: { model: ${at("model")}, tasks: [gsm8k], data: ${at("data")}, seq: 32, loss-only: true }
out: ${at(out)}
vary: { ${vary} }
train: { steps: ${steps}, batch: 2, lr: 0.01 }
evaluate: { every: 50, test: 4 }
`,
      );
      return ["sweep", file, "--parallel", "1"];
    },
  };
}
