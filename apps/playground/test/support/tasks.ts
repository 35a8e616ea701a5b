/** How long the page keeps the main thread: from Chromium's own trace. */
import type { Browser, Page } from "playwright-core";

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  /** Microseconds on the wall clock. */
  readonly dur?: number;
  /** Microseconds that the thread had a processor. */
  readonly tdur?: number;
  readonly args?: { readonly name?: string };
}

/** A page's tasks on its main thread. */
export interface Tasks {
  readonly count: number;
  /** Milliseconds that the longest had a processor: how long it lasts where nothing else wants the cores. */
  readonly longest: number;
  /** Milliseconds that the longest lasted here, waiting for a core included. */
  readonly longestElapsed: number;
}

/** The tasks of a page's main thread while `work` runs. */
export async function tasksDuring(browser: Browser, page: Page, work: () => Promise<void>): Promise<Tasks> {
  await browser.startTracing(page, { categories: ["toplevel", "__metadata"] });
  await work();
  const trace = JSON.parse((await browser.stopTracing()).toString()) as { traceEvents: TraceEvent[] };
  const { traceEvents } = trace;
  const main = traceEvents.filter(
    ({ ph, name, args }) => ph === "M" && name === "thread_name" && args?.name === "CrRendererMain",
  );
  const tasks = traceEvents.filter(
    ({ name, pid, tid }) =>
      name === "ThreadControllerImpl::RunTask" &&
      main.some((thread) => thread.pid === pid && thread.tid === tid),
  );
  const largest = (values: readonly number[]): number => Math.max(0, ...values) / 1000;
  return {
    count: tasks.length,
    longest: largest(tasks.map(({ tdur, dur }) => tdur ?? dur ?? 0)),
    longestElapsed: largest(tasks.map(({ dur }) => dur ?? 0)),
  };
}
