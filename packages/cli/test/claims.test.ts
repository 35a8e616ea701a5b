/** Agents that share the folder of a sweep: each run is done once, and no agent's death or silence loses any. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { machineName } from "../../core/src/node.ts";
import { folderSource } from "../../experiments/src/node/sweep/folder-source.ts";
import { sweepStatus } from "../../experiments/src/node/sweep/status.ts";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import type { Outcome, RunResult } from "../../experiments/src/sweep/config.ts";
import { type ClaimedRun, fixedSchedule, type Schedule } from "../../experiments/src/sweep/source.ts";
import { scriptArguments } from "./support/command.ts";
import { idleId, idleRuns, SPEC } from "./support/idle-runs.ts";
import { workersOf } from "./support/processes.ts";

interface Agent {
  readonly child: ChildProcess;
  /** What it has said so far. */
  readonly said: Record<string, unknown>[];
  /** Resolves once it says something with this key. */
  says(key: string): Promise<Record<string, unknown>>;
  readonly end: Promise<unknown>;
}

suite("agents of one folder", () => {
  const root = mkdtempSync(join(tmpdir(), "tiedlora-claims-"));
  after(() => rmSync(root, { recursive: true }));
  let folders = 0;
  const folder = (): string => {
    const path = join(root, String(folders++));
    mkdirSync(path);
    return path;
  };

  /** Starts an agent on a folder; its runs are those of `runs`. */
  function agent(notes: string, runs: number, seconds: number, env: Record<string, string> = {}): Agent {
    const child = spawn(process.execPath, [...scriptArguments("agent.ts"), join(notes, "out"), String(runs), String(seconds)], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, IDLE_NOTES: notes, ...env },
    }); // prettier-ignore
    const said: Record<string, unknown>[] = [];
    const waiting = new Set<() => void>();
    createInterface(child.stdout).on("line", (line) => {
      said.push(JSON.parse(line) as Record<string, unknown>);
      for (const look of waiting) look();
    });
    const says = (key: string): Promise<Record<string, unknown>> =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = said.find((one) => key in one);
          if (found !== undefined) resolve(found);
        };
        waiting.add(look);
        look();
      });
    return { child, said, says, end: new Promise((resolve) => child.on("close", resolve)) };
  }

  const startsIn = (notes: string): number[] => {
    const file = join(notes, "starts");
    if (!existsSync(file)) return [];
    return readFileSync(file, "utf8").trim().split("\n").map(Number).sort((a, b) => a - b); // prettier-ignore
  };
  const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

  /** Asserts that all runs have one result, and that the folder holds nothing else. */
  async function assertWhole(notes: string, count: number): Promise<Outcome[]> {
    const store = new RunStore(join(notes, "out"));
    const outcomes = await store.outcomes();
    assert.deepEqual(outcomes.map(({ config }) => config.seed).sort((a, b) => a - b), all(count)); // prettier-ignore
    assert.deepEqual(await store.failures(), []);
    assert.deepEqual(readdirSync(join(notes, "out", "claims")), [], "nothing is claimed any more");
    return outcomes;
  }

  test("24 runs of two agents: 24 starts, and both have a share", async () => {
    const notes = folder();
    const agents = [agent(notes, 24, 60, { IDLE_MS: "40" }), agent(notes, 24, 60, { IDLE_MS: "40" })];
    await Promise.all(agents.map(({ end }) => end));
    assert.deepEqual(startsIn(notes), all(24));
    await assertWhole(notes, 24);
    const shares = agents.map(({ said }) => said.filter(({ counts }) => counts === true).length);
    assert.equal(shares[0]! + shares[1]!, 24);
    assert.deepEqual(agents.map(({ said }) => said.at(-1)), [{ over: 0, failures: 0 }, { over: 0, failures: 0 }]); // prettier-ignore
  });

  test("one of three is killed in the middle of a run: another does it, and nothing else twice", async () => {
    const notes = folder();
    const env = { IDLE_MS: "40", IDLE_WAITS: "3" };
    const agents = all(3).map(() => agent(notes, 12, 60, env));
    let victim: Agent | undefined;
    while (victim === undefined) {
      await sleep(10);
      victim = agents.find(({ said }) => {
        const isAt3 = said.some(({ started }) => started === 3);
        const done = said.filter((one) => "done" in one).length; // results of its earlier runs are written meanwhile
        return isAt3 && done === said.filter((one) => "started" in one).length - 1;
      });
    }
    while (!startsIn(notes).includes(3)) await sleep(10);
    victim.child.kill("SIGKILL");
    const killedAt = Date.now();
    writeFileSync(join(notes, "go"), "");
    await Promise.all(agents.map(({ end }) => end));
    assert.ok(Date.now() - killedAt < 60_000, "a dead process of the same machine is not waited for");
    assert.deepEqual(startsIn(notes), [...all(12), 3].sort((a, b) => a - b)); // prettier-ignore
    await assertWhole(notes, 12);
    const takenOver = agents.flatMap(({ said }) => said.filter((one) => "takenOver" in one));
    assert.deepEqual(takenOver, [{ takenOver: idleId(3), attempt: 2 }]);
  });

  test("one that is stopped for longer than its claim lasts publishes nothing once it goes on; a difference is reported", async () => {
    const notes = folder();
    const first = agent(notes, 1, 2, { IDLE_WAITS: "0", IDLE_LOSS: "1" });
    while (startsIn(notes).length === 0) await sleep(10);
    first.child.kill("SIGSTOP");
    const second = agent(notes, 1, 2, { IDLE_LOSS: "2" });
    assert.deepEqual(await second.says("takenOver"), { takenOver: idleId(0), attempt: 2 });
    await second.end;
    writeFileSync(join(notes, "go"), ""); // the run of the stopped agent ends, too
    await sleep(200);
    first.child.kill("SIGCONT");
    await first.end;
    assert.deepEqual(startsIn(notes), [0, 0]);
    const [outcome] = await assertWhole(notes, 1);
    assert.equal((outcome as RunResult).test.loss, 2, "the result that was published stands");
    // Either it reads the result of its process first, or it finds its claim gone first and ends that process.
    const last = first.said.find((one) => "done" in one) ?? first.said.find((one) => "left" in one);
    const either = "done" in last! ? { done: 0, counts: false, difference: "a test loss of 2 and of 1" } : { left: 0, lost: true }; // prettier-ignore
    assert.deepEqual(last, either);
    assert.deepEqual(workersOf(first.child.pid!), []);
  });

  /** A prepared folder, and a source of its runs. */
  async function opened(count: number, schedule: Schedule = fixedSchedule(idleRuns(count)), seconds = 60) {
    const store = new RunStore(join(folder(), "out"));
    await store.prepare(SPEC);
    return { store, schedule, source: await folderSource(store, schedule, { staleSeconds: seconds }) };
  }

  const NEVER = new AbortController().signal;
  const resultOf = ({ config }: ClaimedRun, loss = 1): RunResult => ({
    id: idleId(config.seed), config, trainable: 1, total: 2, steps: 3, bestStep: 3, curve: [[1, 2]], valid: [], samples: [],
    test: { count: 1, skipped: 0, loss, perplexity: Math.exp(loss), scores: { accuracy: 50 } },
    seconds: 1, tokensPerSecond: 1, device: "test", note: null,
  }); // prettier-ignore

  /** Writes the claim of an agent of another machine, or of this one, that was last heard of so many seconds ago. */
  function claimBy(
    store: RunStore,
    attempt: number,
    { machine = "elsewhere", pid = 7, silent = 0 } = {},
  ): string {
    const path = join(store.directory, "claims", `${idleId(0)}.${attempt}.json`);
    mkdirSync(join(store.directory, "claims"), { recursive: true });
    const text = { agent: "other", host: "far.example", pid, machine, start: "0", since: "2026-01-01T00:00:00.000Z", step: 5 }; // prettier-ignore
    writeFileSync(path, JSON.stringify(text));
    const then = new Date(Date.now() - silent * 1000);
    utimesSync(path, then, then);
    return path;
  }

  test("another machine's claim holds while it shows signs of life, and not for longer", async () => {
    const { store, source } = await opened(2);
    claimBy(store, 1, { silent: 30 });
    const run = await source.next(NEVER);
    assert.equal(run?.config.seed, 1);
    await run.publish(resultOf(run));
    const waiting = new AbortController();
    const nothing = source.next(waiting.signal);
    setTimeout(() => waiting.abort(), 100);
    assert.equal(await nothing, null, "it waits for the other");
    assert.equal(source.left, 1);
    claimBy(store, 1, { silent: 61 });
    const over = await source.next(NEVER);
    assert.equal(over?.config.seed, 0);
    assert.deepEqual(readdirSync(join(store.directory, "claims")), [`${idleId(0)}.2.json`]);
    await over.release();
    assert.deepEqual(readdirSync(join(store.directory, "claims")), []);
  });

  test("a run whose agents died three times has failed, until somebody starts a sweep again", async () => {
    const { store, source, schedule } = await opened(1);
    claimBy(store, 3, { machine: machineName(), pid: spawnSync(process.execPath, ["--version"]).pid });
    assert.equal(await source.next(NEVER), null);
    assert.equal(source.failures, 1);
    const [failure] = await store.failures();
    assert.match(failure!.message, /given up after 3 attempts: .* the last was process \d+ on far\.example/);
    const again = await folderSource(store, schedule);
    const run = await again.next(NEVER);
    await run!.publish(resultOf(run!));
    assert.deepEqual([again.left, again.failures, await store.failures()], [0, 0, []]);
  });

  test("who joins others leaves failures alone; who begins anew tries them again", async () => {
    const { store, source, schedule } = await opened(2);
    const [bad, good] = [await source.next(NEVER), await source.next(NEVER)];
    assert.equal(await bad!.fail("no"), true);
    const joined = await folderSource(store, schedule);
    assert.deepEqual([joined.joins, joined.left, joined.failures], [true, 1, 1]);
    await good!.publish(resultOf(good!));
    assert.equal(await joined.next(NEVER), null);
    const anew = await folderSource(store, schedule);
    assert.deepEqual([anew.joins, anew.left], [false, 1]);
    assert.equal((await anew.next(NEVER))?.config.seed, 0);
  });

  test("a claim whose file was taken away is lost: its result does not count, and its failure is none", async () => {
    for (const taken of ["removed", "overtaken"] as const) {
      const { store, source } = await opened(1);
      const run = await source.next(NEVER);
      if (taken === "removed") rmSync(join(store.directory, "claims", `${idleId(0)}.1.json`));
      else claimBy(store, 2);
      assert.deepEqual(await run!.publish(resultOf(run!)), { counts: false, difference: null });
      assert.equal(await run!.fail("no"), false);
      assert.equal(run!.lost.aborted, true);
      assert.deepEqual([await store.outcomes(), await store.failures()], [[], []]);
    }
  });

  test("the first result stands, also if two agents believe that the run is theirs", async () => {
    const { store, source } = await opened(1);
    const run = await source.next(NEVER);
    assert.equal(await store.finish(resultOf(run!, 5)), true); // as if between the look at the claim and the publication
    assert.deepEqual(await run!.publish(resultOf(run!, 6)), { counts: false, difference: "a test loss of 5 and of 6" }); // prettier-ignore
    assert.equal(await store.finish(resultOf(run!, 7)), false);
    assert.equal(((await store.outcomes())[0] as RunResult).test.loss, 5);
  });

  test("a schedule that learns is told of every result once, also of those from elsewhere", async () => {
    const configs = idleRuns(3);
    const told: string[] = [];
    const schedule: Schedule = {
      total: 3,
      learn: (results, failed) => void told.push(...results.map(({ id }) => id), ...failed),
      runs: () => configs.slice(0, told.length < 2 ? 2 : 3),
    };
    const { source, store } = await opened(3, schedule, 2);
    const first = await source.next(NEVER);
    await first!.publish(resultOf(first!));
    const second = await source.next(NEVER);
    setTimeout(() => void store.finish(resultOf(second!)), 50);
    const third = await source.next(NEVER); // waits for the second, which is another's by now
    assert.equal(third?.config.seed, 2);
    assert.deepEqual(told, [idleId(0), idleId(1)]);
  });

  test("nobody leaves a search while it is being told of results from which further runs follow", async () => {
    const configs = idleRuns(3);
    let told = 0;
    const schedule: Schedule = {
      total: 3,
      learn: (results, failed) => void (told += results.length + failed.length),
      runs: () => configs.slice(0, told < 2 ? 2 : 3),
    };
    const { store, source } = await opened(3, schedule, 4);
    const first = await source.next(NEVER);
    await store.finish(resultOf({ ...first!, config: configs[1]! })); // by another agent
    const gate = (): { readonly passed: Promise<void>; readonly open: () => void } => {
      let open = (): void => undefined;
      return { passed: new Promise((resolve) => (open = resolve)), open: () => open() };
    };
    const [listing, listed, reading, read] = [gate(), gate(), gate(), gate()];
    store.ids = async (kind) => {
      listing.open();
      await listed.passed;
      return RunStore.prototype.ids.call(store, kind);
    };
    store.result = async (id) => {
      reading.open();
      await read.passed;
      return RunStore.prototype.result.call(store, id);
    };
    const next = source.next(NEVER); // finds that the second run has ended, and looks into the folder
    await listing.passed;
    const published = first!.publish(resultOf(first!));
    await reading.passed; // the result of the second run, to tell the schedule of both
    const again = new Promise<void>((resolve) => {
      const ids = store.ids.bind(store);
      store.ids = (kind) => (resolve(), ids(kind));
    });
    listed.open();
    await Promise.race([next, again]);
    read.open();
    await published;
    assert.equal((await next)?.config.seed, 2);
  });

  test("who waits for a run goes on as soon as one of the same agent ends, or is given back", async () => {
    const { source } = await opened(2, undefined, 36_000); // which would look into the folder again after half an hour
    const [first, second] = [await source.next(NEVER), await source.next(NEVER)];
    const again = source.next(NEVER);
    await first!.release();
    assert.equal((await again)!.config.seed, first!.config.seed);
    const nothing = source.next(NEVER);
    await second!.publish(resultOf(second!));
    await (await again)!.publish(resultOf((await again)!));
    assert.equal(await nothing, null);
  });

  test("a folder in which nothing can be claimed ends the agent with an error that names it", async () => {
    const { store, source } = await opened(1);
    writeFileSync(join(store.directory, "claims"), ""); // not a folder: nothing can be claimed
    await assert.rejects(source.next(NEVER), /claims/);
  });

  test("the state of a sweep names who performs what, what failed, and how long the rest may take", async () => {
    const { store, source, schedule } = await opened(6);
    const runs = [await source.next(NEVER), await source.next(NEVER), await source.next(NEVER)];
    await store.finish({ ...resultOf(runs[0]!), duration: 100 });
    await runs[1]!.fail("the loss is NaN");
    const steps = runs[2]!.config.steps;
    claimBy(store, 9, { silent: 5 }); // of a run that has a result by now
    const status = await sweepStatus(store, schedule);
    const { running, ...rest } = status;
    assert.deepEqual(rest, {
      runs: 6, finished: 1, waiting: 3, failed: [{ id: idleId(1), message: "the loss is NaN" }], secondsLeft: 400,
    }); // prettier-ignore
    assert.equal(running.length, 1);
    const [{ since, silent, host, ...one }] = running as [(typeof running)[0]];
    assert.deepEqual(one, { id: idleId(2), pid: process.pid, attempt: 1, step: 0, steps, dead: false });
    assert.ok(Math.abs(Date.parse(since!) - Date.now()) < 60_000 && silent < 60 && host !== null);
    assert.equal((await sweepStatus(store, schedule, 1e-9)).running[0]!.dead, true);
  });
});
