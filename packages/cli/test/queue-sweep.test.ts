/** A sweep whose runs workers of a queue perform: every result is there once, whatever dies, and equal to that of one machine. */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { expandSweep, fixedSchedule, type Outcome, parseSweep } from "@tiedlora/experiments";
import { BASE_DIRECTORY, RunStore } from "@tiedlora/experiments/node";
import type { Output } from "../src/output.ts";
import { modelDigest, productVersion } from "../src/queue/identity.ts";
import { QueueServer } from "../src/queue/server.ts";
import { sweepOnQueue } from "../src/queue/sweep/coordinator.ts";
import { ended, start, tiedlora } from "./support/command.ts";
import { endless } from "./support/endless.ts";
import { SERVERS, started } from "./support/queue-servers.ts";
import { idleWorker, worker } from "./support/queue-worker.ts";

const { at, sweep } = await endless();
const VARY = "method: [tl6, tl3], rank: [1, 2], seed: [0, 1]";
const SILENT: Output = {
  interactive: false,
  out: () => undefined,
  write: () => undefined,
  info: () => undefined,
};

/** The results in a folder, but for what depends on the time. */
async function results(out: string): Promise<object[]> {
  const all = await new RunStore(at(out)).outcomes();
  return all.map(({ seconds: _seconds, tokensPerSecond: _speed, duration: _duration, ...rest }) => rest);
}

/** Arguments of the sweep into `out`, whose workers decide how many runs they perform at once. */
const queued = (out: string, url: string): string[] => [...sweep(out, VARY, 60).slice(0, 2), "--queue", url];

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
      const killed = worker(t, server.url, "--parallel", "1");
      const kept = worker(t, server.url, "--parallel", "1");
      const running = tiedlora(...queued(name, server.url));
      await killed.wrote(RUN_DONE);
      killed.child.kill("SIGKILL");
      await kept.wrote(RUN_DONE, 2);
      await server.restart();
      const { code, info } = await running;
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
      const over = sweepOnQueue(client, {
        schedule: fixedSchedule(configs),
        store,
        announcement: {
          kind: "sweep",
          id: "tiny",
          version: productVersion(),
          host: "here",
          name: "tiny",
          model: "base",
          modelDigest: await modelDigest(BASE_DIRECTORY),
          data: [],
          backend: "reference",
        },
        output: SILENT,
        signal: new AbortController().signal,
        onDone: (outcome) => done.push(outcome),
        onFailed: ({ id, message }) => assert.fail(`${id}: ${message}`),
      });
      await workers[0]!.wrote(/^sweep tiny: \S+ done/, 5);
      workers[0]!.child.kill("SIGKILL");
      await over;
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
