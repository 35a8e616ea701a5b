/**
 * A pool of processes that run test files. If a file makes its process crash, exit or hang, that is a failure of the file (which
 * names the running test), and the next files run in a new process.
 */
import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { isAbsolute, join } from "node:path";
import { pathToFileURL } from "node:url";

/** The result of one test file. */
export interface FileResult {
  readonly file: string;
  passed: number;
  readonly failures: { name: string; error: string }[];
  readonly skips: { name: string; reason: string }[];
  /** One line per test. */
  readonly tests: string[];
  /** The output to stdout and stderr. */
  output: string;
  ms: number;
}

export interface PoolOptions {
  readonly processes: number;
  /** The time limit of one file. */
  readonly timeoutMs: number;
  /** The time limit of one test that waits. A test that blocks its process is ended by the limit of the file. */
  readonly testMs: number;
  /** The time limit for a process to exit after its tests. */
  readonly exitMs: number;
  /** Runs only tests whose name matches this regular expression. */
  readonly only?: string;
  readonly onResult: (result: FileResult) => void;
}

/** A message from a worker process; see reporter.mjs and worker.mjs. */
type Message =
  | { type: "start"; name: string; nesting: number }
  | { type: "enter"; name: string }
  | { type: "open"; resources: string[] }
  | { type: "diagnostic"; message: string }
  | { type: "load-error"; error: string }
  | {
      type: "result";
      name: string;
      nesting: number;
      passed: boolean;
      suite: boolean;
      skip?: string;
      todo?: string;
      ms?: number;
      error?: string;
    };

const here = import.meta.dirname;
/** Matches diagnostics about errors after the end of a test, which node:test does not report as failures. */
const LATE_ERROR = /asynchronous activity after the test ended|caused the test to fail/;

const LOADING = "(loading the file)";
const SUBTESTS_FAILED = /\d+ subtests? failed/;

/** Runs all `files`. Resolves when each has been reported and every process has ended. */
export async function runFiles(files: readonly string[], options: PoolOptions): Promise<void> {
  await runQueue([...files], options);
}

/** Runs the files in `queue`, which several pools may share: each takes the next file from it. */
export async function runQueue(queue: string[], options: PoolOptions): Promise<void> {
  const runners = Array.from({ length: Math.min(options.processes, queue.length) }, async () => {
    while (queue.length > 0) await new Worker(options).run(queue);
  });
  await Promise.all(runners);
}

/** One worker process. */
class Worker {
  readonly #options: PoolOptions;
  readonly #child: ChildProcess;
  /** The name of the test that marks the end of a file. */
  readonly #end = `end of file ${randomUUID()}`;
  #current: FileResult | undefined;
  /** The names of the running tests, outermost first. */
  #path: string[] = [];
  /** The last test that began. It may be ahead of `#path`, whose reports arrive later. */
  #entered = "";
  /** The resources that keep the process alive after its tests. */
  #open = "";
  #finished: () => void = () => undefined;
  #failures = 0;
  #output = "";

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#child = fork(join(here, "worker.mjs"), [String(options.testMs)], {
      execArgv: [
        ...process.execArgv.filter((flag) => !flag.startsWith("--test-")),
        `--test-reporter=${pathToFileURL(join(here, "reporter.mjs")).href}`,
        "--test-reporter-destination=stdout",
        ...(options.only === undefined ? [] : patterns(options.only, this.#end)),
      ],
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child.on("message", (message) => this.#receive(message as Message));
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (chunk: string) => {
        this.#output += chunk;
      });
    }
  }

  /** Takes files from the queue until it is empty or the process has ended. */
  async run(queue: string[]): Promise<void> {
    const ended = new Promise<string>((resolve) => {
      this.#child.on("exit", (code, signal) =>
        resolve(signal === null ? `exited with code ${code}` : `was ended by ${signal}`),
      );
    });
    let last = "";
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      last = file;
      if (!(await this.#runFile(file, ended))) return;
    }
    const result = emptyResult(`${last} (after the tests)`);
    this.#current = result;
    this.#output = "";
    this.#child.send({});
    const how = await this.#within(ended, this.#options.exitMs);
    if (how === undefined) {
      this.#child.kill("SIGKILL");
      fail(result, "exit", `the process does not end: a test file left something open (${this.#open})`);
    } else if (how !== "exited with code 0" && this.#failures + result.failures.length === 0) {
      fail(
        result,
        "exit",
        `the process ${how} though its tests passed: a hook failed, or an error came late`,
      );
    }
    result.output = this.#output;
    if (result.failures.length > 0) this.#options.onResult(result);
  }

  /** Runs one file. False if the process has ended. */
  async #runFile(file: string, ended: Promise<string>): Promise<boolean> {
    const result = emptyResult(file);
    const started = performance.now();
    this.#current = result;
    this.#path = [];
    this.#entered = "";
    this.#output = "";
    const done = new Promise<"done">((resolve) => {
      this.#finished = () => resolve("done");
    });
    this.#child.send({ file: isAbsolute(file) ? file : join(process.cwd(), file), end: this.#end });
    const how = await this.#within(Promise.race([done, ended]), this.#options.timeoutMs);
    if (how === undefined) {
      this.#child.kill("SIGKILL");
      await ended;
      fail(result, this.#where(), `not done after ${this.#options.timeoutMs / 1000} s`);
    } else if (how !== "done") {
      fail(result, this.#where(), `the process ${how} before the tests were done`);
    } else if (
      this.#options.only === undefined &&
      result.passed + result.failures.length + result.skips.length === 0
    ) {
      fail(result, "(file)", "the file has no test");
    }
    this.#current = undefined;
    result.ms = performance.now() - started;
    result.output = this.#output;
    this.#failures += result.failures.length;
    this.#options.onResult(result);
    return how === "done";
  }

  #receive(message: Message): void {
    const result = this.#current;
    if (result === undefined) return;
    switch (message.type) {
      case "start":
        this.#path.length = message.nesting;
        this.#path.push(message.name);
        break;
      case "enter":
        this.#entered = message.name;
        break;
      case "open":
        this.#open = message.resources.filter((name) => name !== "PipeWrap").join(", ");
        break;
      case "load-error":
        fail(result, LOADING, message.error);
        break;
      case "diagnostic":
        if (LATE_ERROR.test(message.message)) fail(result, "(after a test had ended)", message.message);
        break;
      case "result":
        if (message.name === this.#end) this.#finished();
        else if (!message.name.startsWith(this.#end)) this.#count(result, message);
        break;
    }
  }

  #count(result: FileResult, message: Message & { type: "result" }): void {
    const name = [...this.#path.slice(0, message.nesting), message.name].join(" > ");
    const reason = message.skip ?? message.todo;
    // Of a suite or a test with subtests, only the subtests count, unless it was skipped or failed itself (a hook, its code).
    if (message.suite && message.passed && reason === undefined) return;
    if (SUBTESTS_FAILED.test(message.error ?? "")) return;
    if (reason !== undefined) result.skips.push({ name, reason });
    else if (message.passed) result.passed++;
    else fail(result, isAbsolute(name) ? "(a hook of the file)" : name, message.error ?? "failed");
    const verdict = reason !== undefined ? "skip" : message.passed ? "ok  " : "FAIL";
    result.tests.push(`${verdict} ${name} (${(message.ms ?? 0).toFixed(0)} ms)`);
  }

  #where(): string {
    const path = this.#path.filter((name) => !name.startsWith(this.#end));
    if (path.length === 0 || path.at(-1) === this.#entered)
      return path.join(" > ") || this.#entered || LOADING;
    return this.#entered;
  }

  /** The promise's value, or undefined after `ms`. */
  async #within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), ms);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The options of Node that choose tests by name: those that the user wants, and those that end a file. */
const patterns = (only: string, end: string): string[] =>
  [only, `^${end}`].map((pattern) => `--test-name-pattern=${pattern}`);

const emptyResult = (file: string): FileResult => ({
  file,
  passed: 0,
  failures: [],
  skips: [],
  tests: [],
  output: "",
  ms: 0,
});

function fail(result: FileResult, name: string, error: string): void {
  result.failures.push({ name, error });
}
