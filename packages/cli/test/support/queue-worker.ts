/** Workers of a queue as processes. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import type { TestContext } from "node:test";
import { ended, startWith } from "./command.ts";

/** These workers take others for dead sooner than users' do, so that less is waited for. */
const IMPATIENT = { TIEDLORA_STALE_SECONDS: "4" };

/** A worker as a process. */
export interface TestWorker {
  readonly child: ChildProcess;
  readonly ended: ReturnType<typeof ended>;
  /** Resolves when it has written a line that matches for the `times`-th time. */
  wrote(line: RegExp, times?: number): Promise<void>;
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
  const wrote = async (line: RegExp, times = 1): Promise<void> => {
    while (text.split("\n").filter((one) => line.test(one)).length < times) {
      assert.equal(child.exitCode, null, `the worker ended: ${text}`);
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  };
  return { child, ended: ended(child), wrote };
}
