/** A process under measurement, seen from the parent. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Answer } from "./serve.ts";

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #ended: Promise<void>;
  #errors = "";

  constructor({ program, args, env }: Command) {
    this.#process = spawn(program, args, { env: { ...process.env, ...env } });
    this.#process.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#errors = (this.#errors + text).slice(-4000);
    });
    this.#process.stdin.on("error", () => undefined); // the process has ended, which the next read reports
    this.#ended = new Promise((resolve) => {
      this.#process.on("close", () => resolve());
      this.#process.on("error", (error) => {
        this.#errors += error.message;
        resolve();
      });
    });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Does `n` steps. If the process ends first, rejects with the last lines that it wrote to stderr. */
  async steps(n: number): Promise<Answer> {
    this.#process.stdin.write(`${n}\n`);
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) {
        await this.#ended;
        throw new Error(this.#errors.trim().split("\n").slice(-6).join("\n") || "the process ended");
      }
      if (value.startsWith('{"losses"')) return JSON.parse(value) as Answer; // frameworks print their own lines on stdout too
    }
  }

  /** Ends the process, and waits until it has ended. */
  async end(): Promise<void> {
    this.#process.stdin.end();
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), 5000);
    await this.#ended;
    clearTimeout(timer);
  }
}
