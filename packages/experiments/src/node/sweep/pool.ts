/** Runs the configs of a sweep in parallel processes. A run that fails, or crashes its process, does not stop the others. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type Outcome, type RunConfig, type RunFailure, runId } from "../../sweep/config.ts";
import type { Job, Message } from "./protocol.ts";

export interface PoolEvents {
  readonly onStart?: (config: RunConfig) => void;
  readonly onStep?: (config: RunConfig, step: number, loss: number) => void;
  readonly onDone: (result: Outcome) => Promise<void>;
  readonly onFailed: (failure: RunFailure) => Promise<void>;
}

export interface PoolOptions extends PoolEvents, Omit<Job, "config"> {
  /** The number of processes at a time. */
  readonly parallel: number;
  /** Ends all processes; unfinished runs are lost. */
  readonly signal?: AbortSignal;
  /** The module that the processes run. Default: the worker beside this file. */
  readonly worker?: string;
}

const WORKER = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js";

/** Performs all runs; resolves when the last one has ended. If a result cannot be saved, ends all processes and rejects. */
export async function runPool(configs: readonly RunConfig[], given: PoolOptions): Promise<void> {
  const queue = [...configs];
  const failed = new AbortController();
  const signal = given.signal === undefined ? failed.signal : AbortSignal.any([given.signal, failed.signal]);
  const options = { ...given, signal };
  const lane = async (): Promise<void> => {
    const worker = new Worker(options);
    try {
      for (let next = queue.shift(); next !== undefined && !signal.aborted; next = queue.shift()) {
        options.onStart?.(next);
        await worker.run(next);
      }
    } catch (error) {
      failed.abort();
      throw error;
    } finally {
      worker.end();
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.parallel, configs.length) }, lane));
}

/** A process that is started when it is needed, and restarted when it has died. */
class Worker {
  readonly #options: PoolOptions;
  #child: ChildProcess | null = null;

  constructor(options: PoolOptions) {
    this.#options = options;
    options.signal?.addEventListener("abort", () => this.end());
  }

  async run(config: RunConfig): Promise<void> {
    const { backend, threads, revectorize, onDone, onFailed, signal } = this.#options;
    const outcome = await this.#ask({
      config,
      backend,
      threads,
      ...(revectorize !== undefined && { revectorize }),
    });
    if (outcome.type === "done") await onDone(outcome.result);
    else if (!signal?.aborted) await onFailed({ id: runId(config), config, message: outcome.message });
  }

  /** Sends the job and waits until it is done or has failed, or until the process has died. */
  #ask(job: Job): Promise<Exclude<Message, { type: "step" }>> {
    const child = (this.#child ??= this.#start());
    return new Promise((resolve) => {
      const settle = (outcome: Exclude<Message, { type: "step" }>): void => {
        child.off("message", onMessage).off("exit", onExit).off("error", onError);
        resolve(outcome);
      };
      const onMessage = (message: Message): void => {
        if (message.type === "step") this.#options.onStep?.(job.config, message.step, message.loss);
        else settle(message);
      };
      const died = (how: string): void => {
        this.#child = null;
        settle({ type: "failed", message: `its process ${how}` });
      };
      const onExit = (code: number | null, signal: string | null): void =>
        died(
          signal === null
            ? `ended with exit code ${code}`
            : `was ended by ${signal}${signal === "SIGKILL" ? " (out of memory?)" : ""}`,
        );
      const onError = (error: Error): void => died(`could not be used: ${error.message}`);
      child.on("message", onMessage).on("exit", onExit).on("error", onError);
      child.send(job);
    });
  }

  #start(): ChildProcess {
    const path = this.#options.worker ?? fileURLToPath(new URL(WORKER, import.meta.url));
    const env = { ...process.env, HF_HUB_OFFLINE: "1" }; // the sweep has loaded a model of the hub before: all runs have the same
    return fork(path, { env, stdio: ["ignore", "ignore", "inherit", "ipc"] });
  }

  end(): void {
    this.#child?.kill("SIGKILL"); // the process holds nothing that has to be saved
    this.#child = null;
  }
}
