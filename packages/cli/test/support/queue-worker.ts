/** Workers of a queue as processes. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ended, startWith } from "./command.ts";

/** These workers take others for dead sooner than users' do, so that less is waited for. */
const IMPATIENT = { TIEDLORA_STALE_SECONDS: "4" };

/** After so long a wait fails, and says what there was: well before the limit of a test, which says nothing. */
const PATIENCE_MS = 300_000;

/** A worker as a process. */
export interface TestWorker {
  readonly child: ChildProcess;
  readonly ended: ReturnType<typeof ended>;
  /** What it has written to stderr. */
  text(): string;
  /** Resolves when it has written a line that matches for the `times`-th time. Rejects if it ends before, or writes no such line. */
  wrote(line: RegExp, times?: number): Promise<void>;
}

/** Waits for what needs workers. Rejects if that takes too long, or if one of those that have to be alive meanwhile has ended, with their words. */
export async function duringWork<T>(
  work: Promise<T>,
  what: string,
  alive: readonly TestWorker[],
): Promise<T> {
  const said = (): string => alive.map((one) => `--- ${one.child.pid}\n${one.text()}`).join("\n");
  const died = alive.map(async (one) => {
    const { code, signal } = await one.ended;
    throw new Error(`${what} was waited for, and a worker ended (${code}, ${signal}):\n${said()}`);
  });
  for (const one of died) one.catch(() => undefined); // those that end after the work
  return Promise.race([work, tooLong(() => `${what} did not come; the workers said:\n${said()}`), ...died]);
}

/** The worker that is the first to write a line that matches for the `times`-th time, and after it the others: which one it is depends on the machine. */
export async function firstToWrite(
  workers: readonly TestWorker[],
  line: RegExp,
  times = 1,
): Promise<[TestWorker, ...TestWorker[]]> {
  const each = workers.map(async (one) => {
    await one.wrote(line, times);
    return one;
  });
  for (const one of each) one.catch(() => undefined); // the others may write less
  const first = await Promise.race(each);
  return [first, ...workers.filter((one) => one !== first)];
}

/** Rejects when the patience is over; keeps no process alive. */
async function tooLong(message: () => string): Promise<never> {
  await sleep(PATIENCE_MS, undefined, { ref: false });
  throw new Error(`after ${PATIENCE_MS / 1000} s: ${message()}`);
}

export function worker(t: TestContext, url: string, ...more: string[]): TestWorker {
  return watched(t, startWith(IMPATIENT, "tiedlora.ts", "worker", "--queue", url, ...more));
}

/** A worker whose runs do almost nothing; `log` is a file to which they write their ids. */
export function idleWorker(t: TestContext, url: string, log: string): TestWorker {
  return watched(t, startWith(IMPATIENT, "queue-idle-worker.ts", url, log));
}

function watched(t: TestContext, child: ChildProcess): TestWorker {
  t.after(() => child.kill("SIGKILL"));
  let text = "";
  const waiting: (() => void)[] = [];
  const tell = (): void => {
    for (const one of waiting.splice(0)) one();
  };
  child.stderr!.on("data", (data: Buffer) => {
    text += data.toString();
    tell();
  });
  child.on("exit", tell);
  const seen = async (line: RegExp, times: number): Promise<void> => {
    while (text.split("\n").filter((one) => line.test(one)).length < times) {
      const { exitCode, signalCode } = child;
      assert.deepEqual([exitCode, signalCode], [null, null], `the worker ended: ${text}`);
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  };
  const wrote = (line: RegExp, times = 1): Promise<void> =>
    Promise.race([
      seen(line, times),
      tooLong(() => `${String(line)} was not written ${times} times; the worker said:\n${text}`),
    ]);
  return { child, ended: ended(child), text: () => text, wrote };
}
