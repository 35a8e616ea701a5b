/** The commands that write a directory, each with what it reads and with an older result to write over. */
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tiedlora, type Result } from "./command.ts";
import { writeExamples, writeModel, writeSums } from "./model-directory.ts";

export const OUTPUTS = ["train", "sweep", "report", "merge", "export"] as const;
export type Output = (typeof OUTPUTS)[number];

/** What each command is given; `folder` is that of `prepare`. `version` 1 and 2 write different results. */
function argumentsOf(command: Output, folder: string, version: 1 | 2): string[] {
  const model = ["--model", join(folder, "model"), "--backend", "reference"];
  const adapter = ["--adapter", join(folder, `adapter-${version}`)];
  switch (command) {
    case "train": {
      const data = join(folder, "train.jsonl");
      const lengths = ["--steps", "6", "--batch", "2", "--seq", "32", "--rank", "2", "--eval-every", "2", "--save-every", "2"]; // prettier-ignore
      return ["train", ...model, "--data", data, "--valid", data, ...lengths, "--method", "lora", "--lr", "0.02", "--seed", String(version)]; // prettier-ignore
    }
    case "sweep":
      return ["sweep", join(folder, `grid-${version}.yaml`), "--parallel", "1", "--backend", "reference"];
    case "report":
      return ["report", join(folder, "sweep"), "--title", `Version ${version}`];
    case "merge":
      return ["merge", ...model, ...adapter];
    case "export":
      return ["export", ...model, ...adapter, "--format", "peft-lora"];
  }
}

/** Writes into `folder` what the commands read, and `old/COMMAND`, the results of version 1. */
export async function prepare(folder: string): Promise<void> {
  await writeModel(join(folder, "model"));
  writeExamples(join(folder, "train.jsonl"));
  writeSums(join(folder, "data"));
  for (const version of [1, 2] as const) {
    const grid = `on: { model: ${folder}/model, tasks: [gsm8k], data: ${folder}/data, seq: 32, loss-only: true }
out: ${folder}/nowhere
vary: { method: ${version === 1 ? "lora" : "[lora, vera]"}, rank: 2 }
train: { steps: 3, batch: 2 }
evaluate: { test: 4 }
`;
    writeFileSync(join(folder, `grid-${version}.yaml`), grid);
    await done("train", folder, version, join(folder, `adapter-${version}`));
  }
  await done("sweep", folder, 1, join(folder, "sweep"));
  for (const command of OUTPUTS) await done(command, folder, 1, join(folder, "old", command));
}

async function done(command: Output, folder: string, version: 1 | 2, out: string): Promise<void> {
  const { code, info } = await tiedlora(...argumentsOf(command, folder, version), "--out", out);
  if (code !== 0) throw new Error(`${command}: ${info}`);
}

/** What has to be said for a command to replace what is there. A sweep goes on with it. */
const REPLACES: Readonly<Record<Output, readonly string[]>> = {
  train: ["--restart"],
  sweep: [],
  report: ["--force"],
  merge: ["--force"],
  export: ["--force"],
};

export interface Outcome extends Result {
  /** The files of the directory, by path: what is in each. */
  readonly files: Readonly<Record<string, string>>;
}

/** Writes version 2 into a directory, in the place of what is there, or where it was cut off. */
export async function attempt(
  command: Output,
  folder: string,
  out: string,
  ...more: string[]
): Promise<Outcome> {
  const how = more.includes("--resume") ? [] : REPLACES[command];
  const result = await tiedlora(...argumentsOf(command, folder, 2), "--out", out, ...how, ...more);
  return { ...result, files: filesIn(out) };
}

export function filesIn(directory: string): Record<string, string> {
  const names = readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
  return Object.fromEntries(
    names
      .filter((name) => statSync(join(directory, name)).isFile())
      .map((name) => [name, readFileSync(join(directory, name)).toString("latin1")]),
  );
}
