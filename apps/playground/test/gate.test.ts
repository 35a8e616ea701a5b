/** What a training passes between steps: it lets messages in, is held up and ended, and lends the model out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Gate } from "../src/worker/gate.ts";

/** Work that never gives way by itself: `steps` of 5 ms, with the gate between them. */
async function train(gate: Gate, steps: number, log: string[] = []): Promise<number> {
  let done = 0;
  for (; done < steps; done++) {
    await gate.pass();
    if (gate.stopped) break;
    const end = performance.now() + 5;
    while (performance.now() < end);
    log.push(`step ${done}`);
  }
  await gate.finish();
  return done;
}

test("a message that comes in while it computes is heard within a few steps", async () => {
  const gate = new Gate();
  setTimeout(() => gate.stop(), 1);
  assert.ok((await train(gate, 1000)) < 50);
});

test("while it is held up nothing is computed, and others can use the model", async () => {
  const gate = new Gate();
  const log: string[] = [];
  gate.close();
  const done = train(gate, 3, log);
  await sleep(20);
  assert.equal(log.length, 0);
  await gate.borrow(() => Promise.resolve(void log.push("guest")));
  await sleep(20);
  assert.equal(log.join(), "guest");
  gate.open();
  assert.equal(await done, 3);
});

test("a guest's failure is told to whoever asked, and the training goes on", async () => {
  const gate = new Gate();
  const done = train(gate, 20);
  await assert.rejects(
    gate.borrow(() => Promise.reject(new Error("no"))),
    { message: "no" },
  );
  assert.equal(await done, 20);
});

test("abandoned, it opens, ends, and serves those who still wait", async () => {
  const gate = new Gate();
  const log: string[] = [];
  gate.close();
  const done = train(gate, 3, log);
  const guest = gate.borrow(() => Promise.resolve(void log.push("guest")));
  await gate.abandon();
  await guest;
  assert.equal(await done, 0);
  assert.deepEqual([gate.stopped, gate.abandoned, log], [true, true, ["guest"]]);
});
