/** A sweep whose runs workers of a queue perform: every result is there once, whatever dies. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { expandSweep, fixedSchedule, type Outcome, parseSweep } from "@tiedlora/experiments";
import { BASE_DIRECTORY, RunStore } from "@tiedlora/experiments/node";
import type { Output } from "../src/output.ts";
import { modelDigest, productVersion } from "../src/queue/identity.ts";
import { QueueServer } from "../src/queue/server.ts";
import { sweepOnQueue } from "../src/queue/sweep/coordinator.ts";
import { temporary } from "./support/model-directory.ts";
import { SERVERS, started } from "./support/queue-servers.ts";
import { idleWorker } from "./support/queue-worker.ts";

const folderOf = temporary();
const at = (...names: string[]): string => join(folderOf, ...names);
const SILENT: Output = {
  interactive: false,
  out: () => undefined,
  write: () => undefined,
  info: () => undefined,
};

for (const [name, { skip }] of Object.entries(SERVERS) as [
  keyof typeof SERVERS,
  (typeof SERVERS)["Valkey"],
][]) {
  suite(`a sweep on a queue of ${name}`, { skip }, () => {
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
