/** Performs the runs of a source in parallel processes. A run that fails, or crashes its process, does not stop the others. */
import { type Outcome, type RunConfig, type RunFailure, runId } from "../../sweep/config.ts";
import type { ClaimedRun, Publication, RunSource } from "../../sweep/source.ts";
import type { Job } from "./protocol.ts";
import { PUBLISHED_AT_ONCE, Publishing } from "./publishing.ts";
import { type Ending, RunProcess } from "./run-process.ts";

export interface PoolEvents {
  readonly onStart?: (config: RunConfig) => void;
  readonly onStep?: (config: RunConfig, step: number, loss: number) => void;
  /** Called once the result is published; `publication` says whether it counts. */
  readonly onDone?: (result: Outcome, publication: Publication) => void;
  /** Called once the failure is published. */
  readonly onFailed?: (failure: RunFailure) => void;
  /** Called for a run that ends without an outcome: it was given back, or is `lost`, since it is another agent's by now. */
  readonly onLeft?: (config: RunConfig, lost: boolean) => void;
}

export interface PoolOptions extends PoolEvents, Omit<Job, "config" | "checkpoint"> {
  /** The number of processes at a time. */
  readonly parallel: number;
  /** Ends the runs: those that have a checkpoint save their state. All are given back. */
  readonly signal?: AbortSignal;
  /** The module that the processes run. Default: the worker beside this file. */
  readonly worker?: string;
}

const NEVER = new AbortController().signal;

/**
 * Performs the runs of the source until there is none left. If an outcome cannot be published, ends all processes and rejects.
 */
export async function runPool(source: RunSource, options: PoolOptions): Promise<void> {
  const { parallel, signal = NEVER, worker } = options;
  const [broken, ended] = [new AbortController(), new AbortController()];
  const end = (): void => ended.abort();
  signal.addEventListener("abort", end);
  if (signal.aborted) end();
  const lane = async (): Promise<void> => {
    const child = new RunProcess(worker);
    const publishing = new Publishing(source.publishesAtOnce ?? PUBLISHED_AT_ONCE, () => {
      broken.abort();
      end();
    });
    try {
      while (!ended.signal.aborted) {
        const run = await source.next(ended.signal);
        if (run === null) break;
        if (ended.signal.aborted) await run.release();
        else await publishing.add(await perform(run, child, options, broken.signal));
      }
      await publishing.end();
    } catch (error) {
      broken.abort();
      end();
      throw error;
    } finally {
      child.end();
      await publishing.settled();
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: parallel }, lane));
  signal.removeEventListener("abort", end);
  const failed = lanes.find((one) => one.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** Performs a run. What it returns publishes the outcome, or gives the run back. */
async function perform(
  run: ClaimedRun,
  child: RunProcess,
  options: PoolOptions,
  broken: AbortSignal,
): Promise<() => Promise<void>> {
  const { config, lost, checkpoint } = run;
  const { backend, threads, revectorize, stream, signal = NEVER } = options;
  options.onStart?.(config);
  const job: Job = {
    config,
    backend,
    threads,
    ...(revectorize !== undefined && { revectorize }),
    ...(stream !== undefined && { stream }),
    checkpoint,
  };
  const ending = await child.perform(job, {
    onStep: (step, loss) => {
      run.onStep?.(step, loss);
      options.onStep?.(config, step, loss);
    },
    onSaved: (step) => run.onSaved?.(step),
    stop: signal,
    kill: [lost, broken],
  });
  const cut = signal.aborted || broken.aborted || lost.aborted; // a process that was ended for that has not failed
  return () => conclude(run, ending, options, cut);
}

async function conclude(
  run: ClaimedRun,
  ending: Ending,
  { onDone, onFailed, onLeft }: PoolEvents,
  cut: boolean,
): Promise<void> {
  const { config } = run;
  if (ending.type === "done") {
    const publication = await run.publish(ending.result);
    onDone?.(ending.result, publication);
    return;
  }
  if (ending.type === "failed" && !cut && (await run.fail(ending.message))) {
    onFailed?.({ id: runId(config), config, message: ending.message });
    return;
  }
  await run.release();
  onLeft?.(config, run.lost.aborted);
}
