/** The worker's side of the process in which it trains: one request at a time. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { COLLECTING_RARELY } from "./collector.ts";
import type { Answer, Request } from "./protocol.ts";

const MODULE = import.meta.url.endsWith(".ts") ? "./process.ts" : "./process.js";

/** Thrown when the process has died: whatever it had loaded is gone. */
export class DiedError extends Error {}

export class TrainingProcess {
  readonly #child: ChildProcess;
  #end: string | null = null;

  constructor() {
    const path = fileURLToPath(new URL(MODULE, import.meta.url));
    const execArgv = [...process.execArgv, COLLECTING_RARELY];
    this.#child = fork(path, {
      execArgv,
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      serialization: "advanced",
    });
    this.#child.on("exit", (code, signal) => {
      this.#end = signal === null ? `ended with exit code ${code}` : `was ended by ${signal}${signal === "SIGKILL" ? " (out of memory?)" : ""}`; // prettier-ignore
    });
    this.#child.on("error", (error) => (this.#end ??= `could not be used: ${error.message}`));
  }

  get alive(): boolean {
    return this.#end === null;
  }

  /** Sends a request and waits for its end: whether gradients were stored. Rejects with what it failed with, or DiedError. */
  ask(request: Request): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const child = this.#child;
      const died = (): void => {
        done();
        reject(new DiedError(`its process ${this.#end}`));
      };
      const onMessage = (answer: Answer): void => {
        done();
        if (answer.type === "done") resolve(answer.stored);
        else reject(new Error(answer.message));
      };
      const done = (): void => void child.off("message", onMessage).off("exit", died).off("error", died);
      if (!this.alive) return died();
      child.on("message", onMessage).on("exit", died).on("error", died);
      child.send(request, (error) => {
        if (error !== null) this.#child.kill("SIGKILL");
      });
    });
  }

  end(): void {
    this.#child.kill("SIGKILL"); // it holds nothing that has to be saved
  }
}
