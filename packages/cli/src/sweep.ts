/** `tiedlora sweep`: performs all runs of a YAML file in parallel processes; finished runs are not repeated. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { BASE_DIRECTORY } from "@tiedlora/experiments/node";
import { withLock } from "./run/lock.ts";
import { runPool } from "@tiedlora/experiments/node";
import { RunStore, scheduleOf } from "@tiedlora/experiments/node";
import {
  type ClaimedRun,
  type RunConfig,
  runId,
  type RunSource,
  type Schedule,
  wholeId,
} from "@tiedlora/experiments";
import { expandSweep } from "@tiedlora/experiments";
import { parseSweep, type SweepSpec } from "@tiedlora/experiments";
import { checkOut } from "./checks.ts";
import { BACKEND_NAMES, type BackendName, decideVectors, withDevice } from "./device.ts";
import { findModel } from "./find-model.ts";
import { checkLength } from "./load.ts";
import { interruptible } from "./interrupt.ts";
import { Interrupted, paint, type Output } from "./output.ts";
import { path } from "./options.ts";
import { parseAddress } from "./queue/address.ts";
import { queueCommand } from "./queue/sweep/command.ts";
import { UsageError } from "./settings.ts";
import { decideStreaming, STREAM_HELP } from "./streaming.ts";
import { SweepProgress } from "./sweep-progress.ts";

interface SweepCommand {
  readonly out?: string;
  readonly parallel?: number;
  readonly backend: BackendName;
  readonly stream?: true;
  readonly dryRun?: true;
  readonly json?: true;
  readonly queue?: string;
}

export function addSweep(program: Command, output: Output): void {
  program
    .command("sweep")
    .description("run the combinations of a YAML file in parallel; go on where an earlier sweep was stopped")
    .argument("<file>", "a YAML file that says what varies, such as examples/paper-grid.yaml")
    .option("--out <dir>", "the folder of results (default: out in the file)", path)
    .option("--parallel <n>", "processes at once (default: as many as cores on cpu, 1 on webgpu)", processes)
    .option("--backend <name>", BACKEND_NAMES.join(", "), backendName, "cpu")
    .option("--stream", STREAM_HELP)
    .option("--dry-run", "list the runs, and run none of them")
    .option("--json", "print one JSON object for each run that ends")
    .option("--queue <url>", "hand the runs to workers (tiedlora worker): redis://… or postgres://…")
    .addHelpText(
      "after",
      "\nExample:\n  tiedlora sweep examples/paper-grid.yaml\n  tiedlora report runs/paper-grid",
    )
    .action(async (file: string, options: SweepCommand) => {
      const text = await readSpec(file);
      const spec = parseSweep(text, file);
      const store = new RunStore(options.out ?? spec.out);
      if (options.dryRun) {
        for (const config of expandSweep(spec)) output.out(runId(config));
        return;
      }
      if (options.queue !== undefined) parseAddress(options.queue);
      await checkOut(store.directory);
      const directory = await checkModel(spec.on, output);
      await withLock(store.directory, async () => {
        if ((await store.prepare(text)) === "changed")
          output.info(
            `${paint("yellow", "note:")} the sweep's file has changed since ${store.directory} was written; runs of the earlier ` +
              `file that are not in this one stay there, and the report leaves them out`,
          );
        const { queue, backend, json = false } = options;
        if (queue === undefined) return sweep({ spec, options, output, store, directory });
        const schedule = await scheduleOf(spec, store);
        await queueCommand(queue, { spec, store, schedule, backend, json, output });
      });
    });
}

/** Checks, before any run, that the model exists, and has a position for every token of the longest examples; gives its directory. */
async function checkModel({ model, seq }: SweepSpec["on"], output: Output): Promise<string> {
  const given = model === "base" ? BASE_DIRECTORY : model;
  const { directory } = await findModel(given, output, { setting: "on.model" });
  await checkLength(directory, seq, "on.seq");
  return directory;
}

function processes(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError("expected a whole number of at least 1.");
  return value;
}

function backendName(text: string): BackendName {
  const found = BACKEND_NAMES.find((name) => name === text);
  if (found === undefined) throw new InvalidArgumentError(`expected one of ${BACKEND_NAMES.join(", ")}.`);
  return found;
}

async function readSpec(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "there is no such file" : `it cannot be read (${code})`;
    throw new UsageError(`${file}: ${why}; examples/paper-grid.yaml is one to start from`);
  }
}

interface Sweep {
  readonly spec: SweepSpec;
  readonly options: SweepCommand;
  readonly output: Output;
  readonly store: RunStore;
  /** The directory of the model. */
  readonly directory: string;
}

async function sweep({ spec, options, output, store, directory }: Sweep): Promise<void> {
  const outcomes = await store.outcomes({ curves: false });
  const schedule = await scheduleOf(spec, store);
  schedule.learn?.(outcomes, []);
  const done = new Set(outcomes.map(({ id }) => id));
  const finished = schedule.total - schedule.runs().filter((config) => !done.has(runId(config))).length;
  const count = (): number => schedule.total - finished;
  const cores = availableParallelism();
  const parallel = options.parallel ?? spec.parallel ?? (options.backend === "webgpu" ? 1 : cores);
  const threads = Math.max(1, Math.floor(cores / parallel));
  output.info(
    `${paint("bold", spec.name)}: ${schedule.total} runs, ${finished} of them finished earlier; ` +
      `${parallel} at once, results in ${store.directory}`,
  );
  const { quantize } = spec.on;
  const stream = await withDevice(options.backend, (device) =>
    decideStreaming(directory, device, { stream: options.stream, quantize, processes: parallel, output }),
  );
  const progress = new SweepProgress(output, count, options.json === true);
  const interrupted = await interruptible(async (signal) => {
    try {
      await runPool(sourceOf(schedule, store, done), {
        parallel,
        backend: options.backend,
        threads,
        stream,
        revectorize: options.backend === "cpu" && (await decideVectors()),
        signal,
        onStep: (config, step) => progress.step(config, step),
        onDone: (result) => progress.done(result),
        onFailed: (failure) => progress.failed(failure),
      });
    } finally {
      progress.stop();
    }
    return signal.aborted;
  });
  progress.end(store.directory);
  if (interrupted) {
    output.info("interrupted; the same command goes on with what is missing");
    throw new Interrupted();
  }
  if (progress.failures > 0)
    throw new Error(`${progress.failures} of ${count()} runs failed; the same command tries them again`);
}

/** Hands out the runs of a schedule; no other process has the folder. */
function sourceOf(schedule: Schedule, store: RunStore, done: ReadonlySet<string>): RunSource {
  const given = new Set(done);
  let running = 0;
  let wake: (() => void)[] = [];
  const ended = (): void => {
    running--;
    for (const one of wake) one();
    wake = [];
  };
  const claimed = (config: RunConfig): ClaimedRun => ({
    config,
    checkpoint: schedule.learn
      ? join(store.directory, "checkpoints", `${wholeId(config)}.safetensors`)
      : null,
    lost: new AbortController().signal,
    publish: async (result) => {
      await store.finish(result);
      schedule.learn?.([result], []);
      ended();
      return { counts: true, difference: null };
    },
    fail: async (message) => {
      await store.fail({ id: runId(config), config, message });
      schedule.learn?.([], [runId(config)]);
      ended();
      return true;
    },
    release: () => Promise.resolve(ended()),
  });
  return {
    async next(signal) {
      while (!signal.aborted) {
        const config = schedule.runs().find((one) => !given.has(runId(one)));
        if (config !== undefined) {
          given.add(runId(config));
          running++;
          return claimed(config);
        }
        if (running === 0) return null;
        await new Promise<void>((resolve) => wake.push(resolve));
      }
      return null;
    },
  };
}
