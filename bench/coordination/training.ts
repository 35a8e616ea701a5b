/** Steps of a training whose micro-batches a worker computes, beside those of the same training in one process. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { SERVERS } from "../../packages/cli/test/support/queue-servers.ts";
import { writeExamples, writeModel } from "../../packages/cli/test/support/model-directory.ts";

/** Steps at the beginning in which programs are compiled. */
const FIRST = 5;

interface Training {
  readonly steps: number;
  readonly rounds: number;
}

const command = (...argv: string[]): ChildProcess =>
  spawn(process.execPath, [join(import.meta.dirname, "../../packages/cli/bin/tiedlora.js"), ...argv], { stdio: ["ignore", "pipe", "inherit"] }); // prettier-ignore

/** The milliseconds of each step, as the lines of --json arrive. */
async function stepsOf(argv: readonly string[]): Promise<number[]> {
  const child = command(...argv);
  const end = once(child, "exit");
  const times: number[] = [];
  for await (const line of createInterface({ input: child.stdout! }))
    if ("loss" in (JSON.parse(line) as object)) times.push(performance.now());
  const [code] = (await end) as [number];
  if (code !== 0) throw new Error(`tiedlora ${argv[0]} ended with ${code}`);
  return times.slice(1).map((time, i) => time - times[i]!).slice(FIRST); // prettier-ignore
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** LoRA with half a million parameters on a model of four layers. */
export async function training({ steps, rounds }: Training): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "tiedlora-bench-"));
  const at = (name: string): string => join(folder, name);
  await writeModel(at("model"), { hidden_size: 256, intermediate_size: 512, num_hidden_layers: 4, num_key_value_heads: 4, initializer_range: 0.05 }); // prettier-ignore
  writeExamples(at("train.jsonl"), 64);
  const argv = (out: string): string[] => [
    ..."train --method lora --rank 82 --target qkv --seq 32 --batch 4 --accumulate 2 --lr 0.001 --json".split(
      " ",
    ),
    "--model",
    at("model"),
    "--data",
    at("train.jsonl"),
    "--out",
    at(out),
    "--steps",
    String(steps),
  ];
  const valkey = await SERVERS.Valkey.start();
  const worker = command("worker", "--queue", valkey.url);
  worker.stdout!.resume();
  try {
    const found: { alone: number[]; queue: number[] } = { alone: [], queue: [] };
    for (let round = 0; round < rounds; round++) {
      found.alone.push(...(await stepsOf(argv(`alone${round}`))));
      found.queue.push(...(await stepsOf([...argv(`queue${round}`), "--queue", valkey.url])));
    }
    for (const [name, of] of Object.entries({ median, mean })) {
      const [alone, queue] = [of(found.alone), of(found.queue)];
      console.log(`training, ${name} step: ${alone.toFixed(1)} ms alone, ${queue.toFixed(1)} ms by a worker: ${(queue - alone).toFixed(1)} ms more`); // prettier-ignore
    }
  } finally {
    worker.kill("SIGKILL");
    await valkey.stop();
    rmSync(folder, { recursive: true });
  }
}
