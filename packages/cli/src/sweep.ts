/** `tiedlora sweep`: performs all runs of a YAML file in parallel processes; finished runs are not repeated. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { type Command, InvalidArgumentError } from "commander";
import { type FolderSource, folderSource } from "@tiedlora/experiments/node";
import { checkUnlocked, withLock } from "./run/lock.ts";
import { runPool } from "@tiedlora/experiments/node";
import { RunStore, scheduleOf, sweepStatus, type SweepStatus } from "@tiedlora/experiments/node";
import { runId, type Schedule } from "@tiedlora/experiments";
import { expandSweep } from "@tiedlora/experiments";
import { parseSweep, type SweepSpec } from "@tiedlora/experiments";
import { checkOut } from "./checks.ts";
import { BACKEND_NAMES, type BackendName, decideVectors, withDevice } from "./device.ts";
import { findSweepModel } from "./sweep-model.ts";
import { checkLength } from "./load.ts";
import { interruptible } from "./interrupt.ts";
import { Interrupted, paint, shellWord, type Output } from "./output.ts";
import { path } from "./options.ts";
import { parseAddress } from "./queue/address.ts";
import { queueCommand } from "./queue/sweep/command.ts";
import { showQueueStatus } from "./queue/sweep/status.ts";
import { UsageError } from "./settings.ts";
import { decideStreaming, STREAM_HELP, sweepStep } from "./streaming.ts";
import { staleSecondsOf } from "./stale.ts";
import { SweepProgress } from "./sweep-progress.ts";
import { prepareLogs, slurmScript, submit } from "./sweep-slurm.ts";
import { showStatus } from "./sweep-status.ts";

interface SweepCommand {
  readonly out?: string;
  readonly parallel?: number;
  readonly backend: BackendName;
  readonly stream?: true;
  readonly dryRun?: true;
  readonly json?: true;
  readonly queue?: string;
  readonly status?: true;
  readonly slurm?: true | number;
  readonly submit?: true;
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
    .option("--json", "print one JSON object for each run that ends; with --status, one for the state")
    .option("--status", "show who performs which run, what failed, and how long the rest may take")
    .option(
      "--slurm [agents]",
      "print a script for Slurm's sbatch: an array of tasks that share the runs (default: 8)",
      processes,
    ) // prettier-ignore
    .option("--submit", "submit that script by sbatch")
    .option("--queue <url>", "hand the runs to workers (tiedlora worker): redis://… or postgres://…")
    .addHelpText(
      "after",
      "\nExample:\n  tiedlora sweep examples/paper-grid.yaml\n  tiedlora report runs/paper-grid",
    )
    .action(async (file: string, options: SweepCommand) => {
      const text = await readSpec(file);
      const spec = parseSweep(text, file);
      const store = new RunStore(options.out ?? spec.out);
      const schedule = (): Promise<Schedule> => scheduleOf(spec, store);
      checkOne(options);
      if (options.queue !== undefined) parseAddress(options.queue);
      const staleSeconds = staleSecondsOf(process.env);
      if (options.dryRun) {
        for (const config of expandSweep(spec)) output.out(runId(config));
        return;
      }
      if (options.status) {
        // The schedule is made anew each time: one that learns is told of all results.
        const shown = { name: spec.name, json: options.json === true };
        const read = async (): Promise<SweepStatus> => sweepStatus(store, await schedule(), staleSeconds);
        if (options.queue === undefined) await showStatus({ ...shown, read }, output);
        else await showQueueStatus(options.queue, { ...shown, store, schedule }, output);
        return;
      }
      await checkOut(store.directory);
      const directory = await checkModel(spec.on, output);
      if (spec.train.teacher !== undefined) await findSweepModel(spec.train.teacher, output, "train.teacher");
      if (options.slurm !== undefined || options.submit) {
        await slurm(file, { spec, options, output, store, directory, schedule: await schedule() });
        return;
      }
      const { queue, backend, json = false } = options;
      if (queue !== undefined) {
        await withLock(store.directory, async () => {
          await prepare(store, text, output);
          await queueCommand(queue, { spec, store, schedule: await schedule(), backend, json, output });
        });
        return;
      }
      await checkUnlocked(store.directory);
      await prepare(store, text, output);
      await sweep({ spec, options, output, store, directory, schedule: await schedule() }, staleSeconds);
    });
}

/** Prepares the folder of results, and says if it belongs to an earlier version of the sweep's file. */
async function prepare(store: RunStore, text: string, output: Output): Promise<void> {
  if ((await store.prepare(text)) === "changed")
    output.info(
      `${paint("yellow", "note:")} the sweep's file has changed since ${store.directory} was written; runs of the earlier ` +
        `file that are not in this one stay there, and the report leaves them out`,
    );
}

/** Throws UsageError if flags that each make another command of this one are given together. */
function checkOne({ dryRun, status, slurm, submit: submits, queue, parallel, stream }: SweepCommand): void {
  const scripted = slurm !== undefined || submits === true;
  const given = [
    dryRun && "--dry-run",
    status && "--status",
    scripted && "--slurm",
    queue !== undefined && !status && "--queue",
  ];
  const [first, second] = given.filter((one) => typeof one === "string");
  if (second !== undefined) throw new UsageError(`${first} and ${second} are both given; give one of them`);
  const workers = parallel !== undefined ? "--parallel" : stream ? "--stream" : null;
  if (queue !== undefined && workers !== null)
    throw new UsageError(
      `${workers} has no effect with --queue: each worker decides that for its machine${parallel === undefined ? "" : " (tiedlora worker --parallel)"}; leave it out`,
    );
}

const AGENTS = 8;

/** Prints, or submits, the script that makes Slurm start agents of the sweep. */
async function slurm(file: string, { spec, options, output, store, schedule }: Sweep): Promise<void> {
  const wanted = typeof options.slurm === "number" ? options.slurm : AGENTS;
  const { parallel, backend, stream } = options;
  const argv = ["sweep", file, "--out", store.directory, "--backend", backend, ...(parallel === undefined ? [] : ["--parallel", String(parallel)]), ...(stream ? ["--stream"] : [])]; // prettier-ignore
  const script = slurmScript({
    name: spec.name,
    agents: Math.min(wanted, schedule.total),
    out: store.directory,
    command: [process.execPath, ...process.execArgv, process.argv[1]!, ...argv],
  });
  const logs = await prepareLogs(store.directory);
  if (options.submit) output.out(submit(script));
  else output.write(script);
  output.info(`logs in ${logs}; how it goes: tiedlora sweep ${shellWord(file)} --out ${shellWord(store.directory)} --status`); // prettier-ignore
}

/** Checks, before any run, that the model exists, and has a position for every token of the longest examples; gives its directory. */
async function checkModel({ model, seq }: SweepSpec["on"], output: Output): Promise<string> {
  const { directory } = await findSweepModel(model, output, "on.model");
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
  readonly schedule: Schedule;
}

async function sweep(
  { spec, options, output, store, directory, schedule }: Sweep,
  staleSeconds?: number,
): Promise<void> {
  await store.outcomes({ curves: false }); // finds out early that a result is damaged
  const source = await folderSource(store, schedule, {
    ...(staleSeconds !== undefined && { staleSeconds }),
    onTakenOver: (id, attempt) => progress.note(`${id} is taken over, attempt ${attempt}: its agent is dead`),
  });
  const finished = schedule.total - source.left;
  const count = (): number => schedule.total - finished;
  const cores = availableParallelism();
  const parallel = options.parallel ?? spec.parallel ?? (options.backend === "webgpu" ? 1 : cores);
  const threads = Math.max(1, Math.floor(cores / parallel));
  const { quantize } = spec.on;
  const stream = await withDevice(
    options.backend,
    (device) =>
    decideStreaming(directory, device, { stream: options.stream, quantize, step: sweepStep(expandSweep(spec), directory), processes: parallel, output }), // prettier-ignore
  );
  const progress = new SweepProgress(output, count, options.json === true, () => source.left);
  const interrupted = await interruptible(async (signal) => {
    output.info(
      `${paint("bold", spec.name)}: ${schedule.total} runs, ${finished} of them finished earlier; ` +
        `${parallel} at once, results in ${store.directory}${source.joins ? "; others are at work there, too" : ""}`,
    );
    try {
      await runPool(source, {
        parallel: schedule.learn ? parallel : Math.min(parallel, Math.max(1, source.left)),
        backend: options.backend,
        threads,
        stream,
        revectorize: options.backend === "cpu" && (await decideVectors()),
        signal,
        onStep: (config, step) => progress.step(config, step),
        onDone: (result, publication) => progress.done(result, publication),
        onFailed: (failure) => progress.failed(failure),
        onLeft: (config, lost) => progress.left(config, lost),
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
  await conclude(source, store, count());
}

/** After all runs have ended, here or elsewhere. */
async function conclude(source: FolderSource, store: RunStore, todo: number): Promise<void> {
  await store.tidy();
  const { failures } = source;
  if (failures > 0) throw new Error(`${failures} of ${todo} runs failed; the same command tries them again`);
}
