/** `tiedlora worker`: works for the trainings and sweeps of a queue, on a machine that shares nothing with theirs. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { BACKEND_NAMES, type BackendName, decideVectors } from "./device.ts";
import { interruptible } from "./interrupt.ts";
import { path, whole } from "./options.ts";
import { Interrupted, type Output } from "./output.ts";
import { type Place, Workplace } from "./queue/workplace.ts";
import { QueueServer } from "./queue/server.ts";

interface WorkerFlags {
  readonly queue: string;
  readonly model?: string;
  readonly teacher?: string;
  readonly data?: string;
  readonly backend?: BackendName;
  readonly parallel?: number;
  readonly idle?: number;
}

/** How long an interrupted worker may take to give back what it holds. */
const GRACE_MS = 25_000;

export function addWorker(program: Command, output: Output): void {
  program
    .command("worker")
    .description("work for the trainings and sweeps of a queue, until it is interrupted")
    .requiredOption(
      "--queue <url>",
      "the queue's server: redis://:PASSWORD@HOST or postgres://USER:PASSWORD@HOST/DATABASE",
    ) // prettier-ignore
    .option(
      "--model <dir>",
      "where the base model is on this machine (default: where the training has it)",
      path,
    )
    .option(
      "--teacher <dir>",
      "where the model that a distillation learns from is on this machine (default: where the training has it)",
      path,
    )
    .option(
      "--data <path>",
      "where the data are on this machine (default: where the training has them)",
      path,
    )
    .addOption(
      new Option(
        "--backend <name>",
        "what computes here (default: what the training or the sweep names); another one rounds differently",
      ).choices(BACKEND_NAMES),
    )
    .option(
      "--parallel <n>",
      "runs of a sweep at once (default: as many as cores on cpu, 1 on webgpu)",
      whole(1),
    )
    .option(
      "--idle <seconds>",
      "end once there has been nothing to do for so long (default: wait for work)",
      idle,
    )
    .addHelpText(
      "after",
      "\nExample:\n  tiedlora worker --queue redis://:secret@10.0.0.1 --model ./llama --data train.jsonl",
    )
    .action(async ({ queue, ...flags }: WorkerFlags) => {
      const revectorize = await decideVectors();
      const server = await QueueServer.open(queue, output);
      try {
        output.info(`worker: waiting for work on ${server.shown}`);
        await interruptible((signal) => untilInterrupted(server, { ...flags, output, revectorize }, signal));
      } finally {
        await server.close();
      }
    });
}

function idle(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0)) throw new InvalidArgumentError("expected a number of seconds.");
  return value;
}

async function untilInterrupted(server: QueueServer, place: Place, signal: AbortSignal): Promise<void> {
  const workplace = new Workplace(server, place, signal);
  signal.addEventListener("abort", () => server.stopWaiting());
  const interrupted = new Promise<void>((resolve) => {
    signal.addEventListener("abort", () => void sleep(GRACE_MS, undefined, { ref: false }).then(resolve));
  });
  try {
    await Promise.race([workplace.work(), interrupted]);
  } catch (error) {
    if (!signal.aborted) throw error; // what an interrupted worker leaves is taken over by others
  } finally {
    workplace.end();
  }
  if (!signal.aborted) return;
  place.output.info("interrupted; other workers take over");
  throw new Interrupted();
}
