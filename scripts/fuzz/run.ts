/** Runs cases in child processes. A case that hangs, crashes or uses up the memory ends its process, and is a finding. */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCase, writeCase } from "./case.ts";
import type { CaseResult, Job } from "./job.ts";
import type { Target } from "./target.ts";
import { TARGETS, type TargetName } from "./targets.ts";

export interface FuzzOptions {
  readonly targets: readonly TargetName[];
  readonly seed: number;
  /** The cases of each target: `from` to `to` - 1. */
  readonly from: number;
  readonly to: number;
  readonly processes: number;
  /** The folder for the files of findings; by default they are not saved. */
  readonly save?: string;
  readonly onFinding?: (target: TargetName, finding: CaseResult, saved: string | null) => void;
}

/** The results of the cases of a target. */
export interface Row {
  readonly target: TargetName;
  cases: number;
  accepted: number;
  named: number;
  findings: number;
  /** The processor time of the slowest case, in milliseconds. */
  ms: number;
  /** The largest increase of memory during a case, in bytes. */
  bytes: number;
}

/** The number of cases in a job: few, so that all processes have work until the end. */
const CHUNK = 50;
/** A case that sends nothing for this time hangs. Slow cases are measured in their process, by processor time. */
const HANG_MS = 15_000;
/** The heap limit of a process. A case that exceeds it crashes. */
const HEAP_MB = 640;

export async function fuzz(options: FuzzOptions): Promise<Row[]> {
  const rows = new Map(options.targets.map((target) => [target, { target, cases: 0, accepted: 0, named: 0, findings: 0, ms: 0, bytes: 0 }])); // prettier-ignore
  const jobs = options.targets.flatMap((target) =>
    Array.from({ length: Math.ceil((options.to - options.from) / CHUNK) }, (_, i): Omit<Job, "directory"> => {
      const from = options.from + i * CHUNK;
      return { target, seed: options.seed, from, to: Math.min(from + CHUNK, options.to) };
    }),
  );
  const tell = async (target: TargetName, result: CaseResult): Promise<void> => {
    const row = rows.get(target)!;
    row.cases++;
    if (result.outcome === "accepted") row.accepted++;
    else if (result.outcome === "named") row.named++;
    else row.findings++;
    row.ms = Math.max(row.ms, result.ms);
    row.bytes = Math.max(row.bytes, result.bytes);
    if (result.outcome === "finding")
      options.onFinding?.(target, result, await saveCase(target, result.number, options));
  };
  await Promise.all(Array.from({ length: options.processes }, () => work(jobs, tell)));
  return [...rows.values()];
}

type Tell = (target: TargetName, result: CaseResult) => Promise<void>;

/** Takes jobs until there are none, in a process that is replaced when it ends. */
async function work(jobs: Omit<Job, "directory">[], tell: Tell): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "fuzz-"));
  let child: Child | null = null;
  try {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
      for (let { from } = job; from < job.to;) {
        child ??= new Child();
        const done = await child.run({ ...job, from, directory: join(directory, "case") }, (result) =>
          tell(job.target, result),
        );
        if (done.why !== null) {
          await tell(job.target, {
            number: done.next,
            outcome: "finding",
            message: done.why,
            ms: 0,
            bytes: 0,
          });
          child = null;
        }
        from = done.why === null ? done.next : done.next + 1;
      }
    }
  } finally {
    child?.end();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A child process that runs jobs. */
class Child {
  readonly #process: ChildProcess;
  #errors = "";

  constructor() {
    this.#process = fork(join(import.meta.dirname, "child.ts"), [], {
      execArgv: [
        ...process.execArgv.filter((flag) => !flag.startsWith("--test")),
        `--max-old-space-size=${HEAP_MB}`,
      ],
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#process
      .stderr!.setEncoding("utf8")
      .on("data", (text: string) => (this.#errors = (this.#errors + text).slice(-2000)));
  }

  /** Runs a job. Resolves to the first case without a result and the reason (`why`), which is null if the job was finished. */
  async run(
    job: Job,
    each: (result: CaseResult) => Promise<void>,
  ): Promise<{ next: number; why: string | null }> {
    let next = job.from;
    let told: Promise<void> = Promise.resolve();
    const why = await new Promise<string | null>((resolve) => {
      let timer: NodeJS.Timeout;
      const finish = (reason: string | null): void => {
        clearTimeout(timer);
        this.#process.removeAllListeners();
        resolve(reason);
      };
      const wait = (): void => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          this.end();
          finish(`it was not done after ${HANG_MS / 1000} s`);
        }, HANG_MS);
      };
      this.#process.on("message", (message: CaseResult | "done") => {
        if (message === "done") return finish(null);
        wait();
        next = message.number + 1;
        told = told.then(() => each(message));
      });
      this.#process.on("exit", (code, signal) =>
        finish(`the process ended (${signal ?? code}): ${this.#errors.trim()}`),
      );
      timer = setTimeout(() => finish("the target did not start"), 60_000);
      this.#process.send(job);
    });
    await told;
    return { next, why };
  }

  end(): void {
    this.#process.removeAllListeners();
    this.#process.kill("SIGKILL");
  }
}

const prepared = new Map<TargetName, Promise<Target>>();

async function saveCase(
  target: TargetName,
  number: number,
  { seed, save }: FuzzOptions,
): Promise<string | null> {
  if (save === undefined) return null;
  const directory = join(save, `${target}-${seed}-${number}`);
  if (!prepared.has(target)) prepared.set(target, Promise.resolve(TARGETS[target]()));
  writeCase((await makeCase(target, await prepared.get(target)!, seed, number)).files, directory);
  return directory;
}
