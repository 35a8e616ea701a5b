/** A sweep whose runs workers of a queue perform: every result is there once, whatever dies, and equal to that of one machine. */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type ClaimedRun, expandSweep, fixedSchedule, type Outcome, parseSweep, type RunConfig, runId } from "@tiedlora/experiments"; // prettier-ignore
import { BASE_DIRECTORY, RunStore, scheduleOf, type SweepStatus } from "@tiedlora/experiments/node";
import { HalvingSchedule } from "../../experiments/src/sweep/halving.ts";
import type { Output } from "../src/output.ts";
import { modelDigest, productVersion } from "../src/queue/identity.ts";
import { QueueServer } from "../src/queue/server.ts";
import { names, type RunJob, type SweepAnnouncement } from "../src/queue/sweep/announcement.ts";
import { type QueuedSweep, sweepOnQueue } from "../src/queue/sweep/coordinator.ts";
import { QueueRunSource } from "../src/queue/sweep/source.ts";
import { ended, start, tiedlora } from "./support/command.ts";
import { endless } from "./support/endless.ts";
import { SERVERS, started, type TestServer } from "./support/queue-servers.ts";
import { idleResult } from "./support/queue-idle-result.ts";
import { duringWork, firstToWrite, idleWorker, worker } from "./support/queue-worker.ts";

const { at, sweep } = await endless();
const VARY = "method: [tl6, tl3], rank: [1, 2], seed: [0, 1]";
const SILENT: Output = {
  interactive: false,
  out: () => undefined,
  write: () => undefined,
  info: () => undefined,
};

/** What a sweep of runs that do nothing needs besides its runs. */
async function tiny(
  id = "tiny",
): Promise<Pick<QueuedSweep, "announcement" | "output" | "signal" | "onFailed">> {
  const announcement: SweepAnnouncement = {
    kind: "sweep",
    id,
    version: productVersion(),
    host: "here",
    name: id,
    model: "base",
    modelDigest: await modelDigest(BASE_DIRECTORY),
    data: [],
    backend: "reference",
    largest: [],
  };
  const { signal } = new AbortController();
  const onFailed: QueuedSweep["onFailed"] = (failure) => assert.fail(`${failure.id}: ${failure.message}`);
  return { announcement, output: SILENT, signal, onFailed };
}

/** The results in a folder, but for what depends on the time. */
async function results(out: string): Promise<object[]> {
  const all = await new RunStore(at(out)).outcomes();
  return all.map(({ seconds: _seconds, tokensPerSecond: _speed, duration: _duration, ...rest }) => rest);
}

/** Arguments of the sweep into `out`, whose workers decide how many runs they perform at once. */
const queued = (out: string, url: string): string[] => [...sweep(out, VARY, 60).slice(0, 2), "--queue", url];

/** What `--status --json` says of the sweep into `out`, once a run is being performed. */
async function statusOf(out: string, url: string): Promise<SweepStatus> {
  for (;;) {
    const { code, out: text, info } = await tiedlora(...queued(out, url), "--status", "--json");
    assert.equal(code, 0, info);
    const status = JSON.parse(text) as SweepStatus;
    if (status.running.length > 0) return status;
    assert.ok(status.waiting > 0, "all runs have ended");
  }
}

const RUN_DONE = /^sweep sweep: \S+ done/;

for (const [name, { skip }] of Object.entries(SERVERS) as [
  keyof typeof SERVERS,
  (typeof SERVERS)["Valkey"],
][]) {
  suite(`a sweep on a queue of ${name}`, { skip }, () => {
    test("has the results of one machine, with a worker killed in a run, and the server restarted", async (t) => {
      const server = await started(t, name);
      const here = await tiedlora(...sweep("here", VARY, 60), "--out", at(`here-${name}`));
      assert.equal(here.code, 0, here.info);
      const workers = [0, 1].map(() => worker(t, server.url, "--parallel", "1"));
      const running = tiedlora(...queued(name, server.url));
      const early = running.then((result) =>
        assert.fail(`the sweep ended early (${result.code}): ${result.info}`),
      );
      const [killed, other] = await Promise.race([firstToWrite(workers, RUN_DONE), early]);
      const kept = other!;
      const { running: performing, ...state } = await statusOf(name, server.url);
      assert.deepEqual([state.runs, state.failed], [9, []]);
      for (const { host, pid, attempt } of performing)
        assert.deepEqual(
          [host, [killed.child.pid, kept.child.pid].includes(pid!), attempt],
          [hostname(), true, 1],
        );
      killed.child.kill("SIGKILL");
      await Promise.race([kept.wrote(RUN_DONE, 2), early]);
      await server.restart();
      const { code, info } = await duringWork(running, "the end of the sweep", [kept]);
      assert.equal(code, 0, info);
      assert.deepEqual(await results(name), await results(`here-${name}`));
      kept.child.kill("SIGTERM");
      assert.equal((await kept.ended).code, 130);
    });

    test("of 200 runs, four workers, one of which is killed, lose none, and none counts twice", async (t) => {
      const server = await started(t, name);
      const folder = at(`tiny-${name}`);
      mkdirSync(folder);
      const log = join(folder, "log");
      const seeds = Array.from({ length: 199 }, (_, seed) => seed).join(", ");
      const text = `on: { tasks: [summary] }\nout: x\nvary: { method: [tl6], rank: [1], seed: [${seeds}] }\ntrain: { steps: 1 }\n`;
      const configs = expandSweep(parseSweep(text, "tiny.yaml"));
      assert.equal(configs.length, 200, "with the model itself");
      const store = new RunStore(join(folder, "results"));
      await store.prepare(text);
      const workers = Array.from({ length: 4 }, () => idleWorker(t, server.url, log));
      const client = await QueueServer.open(server.url, SILENT);
      t.after(() => client.close());
      const done: Outcome[] = [];
      const schedule = fixedSchedule(configs);
      const over = sweepOnQueue(client, {
        ...(await tiny()),
        schedule,
        store,
        onDone: (one) => done.push(one),
      });
      const [killed, ...others] = await firstToWrite(workers, /^sweep tiny: \S+ done/, 5);
      killed.child.kill("SIGKILL");
      await duringWork(over, "the end of the sweep", others);
      assert.equal(new Set(done.map(({ id }) => id)).size, 200);
      assert.equal(done.length, 200);
      assert.equal((await store.outcomes()).length, 200);
      const starts = readFileSync(log, "utf8").trim().split("\n").length;
      assert.ok(
        starts === 200 || starts === 201,
        `${starts} starts: at most the killed worker's run began twice`,
      );
    });
  });
}

suite("runs that do nothing, on a queue", { skip: SERVERS.Valkey.skip }, () => {
  let server: TestServer;
  let client: QueueServer;
  before(async () => {
    server = await SERVERS.Valkey.start();
    client = await QueueServer.open(server.url, SILENT);
  });
  after(async () => {
    await client.close();
    await server.stop();
  });

  test("a search decides as it does on one machine", async (t) => {
    const rates = [1, 3, 2, 5, 4, 6, 9, 8, 7].map((n) => n / 10).join(", ");
    const text = `on: { tasks: [summary] }\nout: x\nsearch: { successive-halving: { min-steps: 2 } }\nvary: { method: [tl6, tl3], rank: [1], lr: [${rates}] }\ntrain: { steps: 10, warmup: 0 }\n`;
    const spec = parseSweep(text, "search.yaml");
    const store = new RunStore(at("search"));
    await store.prepare(text);
    const ids: string[] = [];
    idleWorker(t, server.url, at("search-log"));
    const schedule = await scheduleOf(spec, store);
    await sweepOnQueue(client, { ...(await tiny()), schedule, store, onDone: ({ id }) => ids.push(id) });
    const alone = new HalvingSchedule(spec);
    for (let [next] = alone.runs(); next !== undefined; [next] = alone.runs())
      alone.learn([idleResult(next)]);
    assert.deepEqual(ids.sort(), alone.ids().sort());
    assert.ok(ids.length > 1 + 18 && ids.length < 1 + 2 * 18, `${ids.length} runs`);
    assert.equal((await store.decided()).size, ids.length - 1 - 18);
  });

  test("a run that was performed twice counts once; a difference is reported", async () => {
    const { announcement } = await tiny("twice");
    const text =
      "on: { tasks: [summary] }\nout: x\nvary: { method: [tl6], rank: [1] }\nevaluate: { baseline: false }\n";
    const [config] = expandSweep(parseSweep(text, "twice.yaml"));
    const said: string[] = [];
    const source = await QueueRunSource.open(client, {
      announcement,
      here: (one) => one,
      leave: () => Promise.resolve(false),
      say: (_id, what) => said.push(what),
    });
    const queue = await client.queue(names.queue(announcement.id));
    const publications = [];
    for (const seed of [0, 0, 1]) {
      const opts = { jobId: runId(config!), removeOnComplete: true };
      await queue.add("run", { config: JSON.stringify(config) } satisfies RunJob, opts);
      const run = await source.next(new AbortController().signal);
      publications.push(await run!.publish(idleResult({ ...run!.config, seed })));
    }
    await source.close();
    const difference = "has two results, both of none: a test loss of 1 and of 1.001; the first one counts";
    assert.deepEqual(publications, [
      { counts: true, difference: null },
      { counts: false, difference: null },
      { counts: false, difference },
    ]);
    assert.equal(said.at(-1), difference);
  });

  test("the state of what goes on with a run outlives the end of its beginning", async () => {
    const { announcement } = await tiny("rungs");
    const text =
      "on: { tasks: [summary] }\nout: x\nvary: { method: [tl6], rank: [1] }\nevaluate: { baseline: false }\n";
    const [config] = expandSweep(parseSweep(text, "rungs.yaml"));
    const options = { announcement, here: (one: RunConfig) => one, leave: () => Promise.resolve(false), say: () => undefined }; // prettier-ignore
    const source = await QueueRunSource.open(client, options);
    const queue = await client.queue(names.queue(announcement.id));
    const take = async (until: number): Promise<ClaimedRun> => {
      const one = { ...config!, until };
      await queue.add("run", { config: JSON.stringify(one) } satisfies RunJob, { jobId: runId(one) });
      return (await source.next(new AbortController().signal))!;
    };
    const [beginning, rest] = [await take(2), await take(4)];
    writeFileSync(rest.checkpoint!, "the state after four steps");
    await beginning.publish(idleResult(beginning.config));
    assert.equal(readFileSync(rest.checkpoint!, "utf8"), "the state after four steps");
    await rest.publish(idleResult(rest.config));
    await source.close();
  });

  test("how many runs at once is each worker's affair", async () => {
    const { code, info } = await tiedlora(...queued("own", server.url), "--parallel", "2");
    assert.equal(code, 2);
    assert.match(
      info,
      /--parallel has no effect with --queue: each worker decides .*tiedlora worker --parallel/,
    );
  });
});

suite("a sweep of distillations", { skip: SERVERS.Valkey.skip }, () => {
  test("has the results of one machine on a queue; a teacher that is the model itself has nothing to teach", async (t) => {
    const server = await started(t, "Valkey");
    const file = at("taught.yaml");
    const lines = [
      `on: { model: ${at("model")}, tasks: [gsm8k], data: ${at("data")}, seq: 32, loss-only: true }`,
      `out: ${at("taught")}`,
      "vary: { method: lora, rank: 1, loss: [cross-entropy, distillation], teacher-weight: [0, 1] }",
      `train: { steps: 2, batch: 2, lr: 0.01, warmup: 0, teacher: ${at("model")}, temperature: 1.5 }`,
      "evaluate: { every: 50, test: 4, baseline: false }",
    ];
    writeFileSync(file, lines.join("\n"));
    const here = await tiedlora("sweep", file, "--parallel", "1");
    assert.equal(here.code, 0, here.info);
    const curves = new Map((await new RunStore(at("taught")).outcomes()).map(({ config, curve }) => [config.teacherWeight, curve.map(([, loss]) => loss)])); // prettier-ignore
    assert.equal(curves.size, 3);
    for (const [i, loss] of curves.get(undefined)!.entries())
      assert.ok(Math.abs(loss - curves.get(0)![i]!) < 1e-5, "without weight, it is the cross-entropy");
    assert.ok(Math.abs(curves.get(1)![0]!) < 1e-6, String(curves.get(1)));
    const kept = worker(t, server.url, "--parallel", "1");
    const there = await duringWork(tiedlora("sweep", file, "--out", at("taught-queue"), "--queue", server.url), "the sweep", [kept]); // prettier-ignore
    assert.equal(there.code, 0, there.info);
    assert.deepEqual(await results("taught-queue"), await results("taught"));
  });
});

suite("a sweep that is interrupted", { skip: SERVERS.Valkey.skip }, () => {
  test("goes on with what workers have done meanwhile; who does not belong to it is refused by name", async (t) => {
    const server = await started(t, "Valkey");
    const command = queued("cut", server.url);
    const [, file] = command;
    writeFileSync(file!, readFileSync(file!, "utf8").replace("rank: [1, 2]", "rank: [1]"));
    const first = start(...command);
    t.after(() => first.kill("SIGKILL"));
    const end = ended(first);
    const client = await QueueServer.open(server.url, SILENT);
    t.after(() => client.close());
    while ((await client.store.announced()).size === 0) await sleep(100);
    renameSync(at("data"), at("moved"));
    const missing = await tiedlora("worker", "--queue", server.url);
    assert.equal(missing.code, 1, missing.info);
    assert.match(missing.info, /--data \S+: there is no such directory; /);
    writeFileSync(at("moved", "gsm8k", "more.jsonl"), "{}\n");
    const other = await tiedlora("worker", "--queue", server.url, "--data", at("moved"));
    assert.match(other.info, /the files in \S+ are not those of the sweep: their SHA-256 is/);
    renameSync(at("moved", "gsm8k", "more.jsonl"), at("more.jsonl"));

    const elsewhere = worker(t, server.url, "--parallel", "1", "--data", at("moved"), "--idle", "60");
    await elsewhere.wrote(RUN_DONE);
    first.kill("SIGINT");
    const { code, info } = await end;
    assert.equal(code, 130, info);
    assert.match(info, /workers finish the runs that they have in hand/);
    cpSync(at("moved"), at("data"), { recursive: true }); // the worker still uses the other
    const again = await tiedlora(...command);
    assert.equal(again.code, 0, again.info);
    assert.match(again.info, /5 runs, [1-4] of them finished earlier/);
    assert.equal((await results("cut")).length, 5);
  });
});
