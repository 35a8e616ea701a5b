/**
 * A worker whose runs take the milliseconds IDLE_MS and, that of the seed IDLE_WAITS, last until the file "go" is in the folder
 * IDLE_NOTES. There, the file "starts" gets a line for each start of a run. The loss is IDLE_LOSS.
 */
import { appendFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runId } from "../../../experiments/src/sweep/config.ts";
import type { Job, Message, Order } from "../../../experiments/src/node/sweep/protocol.ts";

const { IDLE_NOTES = "", IDLE_MS = "0", IDLE_WAITS = "-1", IDLE_LOSS = "1" } = process.env;
const say = (message: Message): void => void process.send!(message);

async function work({ config }: Job): Promise<void> {
  appendFileSync(join(IDLE_NOTES, "starts"), `${config.seed}\n`);
  say({ type: "step", step: 1, loss: 2 });
  await sleep(Number(IDLE_MS));
  while (config.seed === Number(IDLE_WAITS) && !existsSync(join(IDLE_NOTES, "go"))) await sleep(20);
  const loss = Number(IDLE_LOSS);
  const test = { count: 1, skipped: 0, loss, perplexity: Math.exp(loss), scores: { accuracy: 50 } };
  const result = {
    id: runId(config), config, trainable: 1, total: 2, steps: 3, bestStep: 3, curve: [[1, 2]] as const, valid: [], samples: [], test,
    seconds: 1, tokensPerSecond: 1, device: "idle", note: null,
  }; // prettier-ignore
  say({ type: "done", result });
}

process.on("message", (order: Order) => {
  if (order.type === "stop") say({ type: "stopped" });
  else void work(order.job);
});
process.on("disconnect", () => process.exit());
