/** A child process that performs runs: training blocks its event loop, not that of the sweep, which shows signs of life. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Job, Message, Order } from "./protocol.ts";

/** How a run ended. */
export type Ending = Exclude<Message, { type: "step" | "saved" }>;

/** How a run is watched, and ended before it is done. */
export interface Watch {
  readonly onStep: (step: number, loss: number) => void;
  readonly onSaved: (step: number) => void;
  /** Ends the run in good order: its state is saved first. */
  readonly stop: AbortSignal;
  /** Each of them ends the process at once. */
  readonly kill: readonly AbortSignal[];
}

const WORKER = import.meta.url.endsWith(".ts") ? "./worker.ts" : "./worker.js";

/** The time that a run has to save its state; Slurm and Kubernetes give half a minute or more. */
const GRACE_MS = 20_000;

/** A process that is started when it is needed, and restarted when it has died. */
export class RunProcess {
  readonly #module: string;
  #child: ChildProcess | null = null;

  /** `module` is what the process runs; by default the worker beside this file. */
  constructor(module: string = fileURLToPath(new URL(WORKER, import.meta.url))) {
    this.#module = module;
  }

  /** Sends the job and waits until it has ended, or until the process has died. */
  perform(job: Job, { onStep, onSaved, stop, kill }: Watch): Promise<Ending> {
    const child = (this.#child ??= this.#start());
    return new Promise((resolve) => {
      let grace: NodeJS.Timeout | undefined;
      const onStop = (): void => {
        if (job.checkpoint === null) return this.end();
        child.send({ type: "stop" } satisfies Order, () => undefined); // a process that has gone meanwhile says so by its exit
        grace = setTimeout(() => this.end(), GRACE_MS);
      };
      const onKill = (): void => this.end();
      const settle = (ending: Ending): void => {
        clearTimeout(grace);
        stop.removeEventListener("abort", onStop);
        for (const signal of kill) signal.removeEventListener("abort", onKill);
        child.off("message", onMessage).off("exit", onExit).off("error", onError);
        resolve(ending);
      };
      const onMessage = (message: Message): void => {
        if (message.type === "step") onStep(message.step, message.loss);
        else if (message.type === "saved") onSaved(message.step);
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
      stop.addEventListener("abort", onStop);
      for (const signal of kill) signal.addEventListener("abort", onKill);
      child.send({ type: "run", job } satisfies Order);
      if (kill.some(({ aborted }) => aborted)) onKill();
      else if (stop.aborted) onStop();
    });
  }

  #start(): ChildProcess {
    const env = { ...process.env, HF_HUB_OFFLINE: "1" }; // the sweep has loaded a model of the hub before: all runs have the same
    return fork(this.#module, { env, stdio: ["ignore", "ignore", "inherit", "ipc"] });
  }

  /** Ends the process at once: it holds nothing that has to be saved. */
  end(): void {
    this.#child?.kill("SIGKILL");
    this.#child = null;
  }
}
