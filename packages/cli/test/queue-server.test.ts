/** Connections to a queue's server that are opened while it is away. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { Output } from "../src/output.ts";
import { QueueServer } from "../src/queue/server.ts";
import { SERVERS, started } from "./support/queue-servers.ts";

for (const [name, { skip }] of Object.entries(SERVERS) as [
  keyof typeof SERVERS,
  (typeof SERVERS)["Valkey"],
][]) {
  suite(`a server, ${name}, that goes away`, { skip }, () => {
    test("is waited for by what is opened meanwhile", async (t) => {
      const server = await started(t, name);
      let away: () => void;
      const saidAway = new Promise<void>((resolve) => (away = resolve));
      const info = (line: string): void => {
        if (/does not answer: waiting for it/.test(line)) away();
      };
      const output: Output = { interactive: false, out: () => undefined, write: () => undefined, info };
      const client = await QueueServer.open(server.url, output);
      t.after(() => client.close());
      const startAgain = await server.interrupt();
      const opening = client.queue("tests");
      const patient = QueueServer.open(server.url, output, { patient: true });
      await assert.rejects(QueueServer.open(server.url, output), /no server answers there/);
      await saidAway;
      await startAgain();
      const queue = await opening;
      await queue.add("job", {});
      assert.equal(await queue.getWaitingCount(), 1);
      await (await patient).close();
    });
  });
}
