/** Stands for the process that performs runs: writes the id of each into a file, and answers at once with a made-up result. */
import { appendFileSync } from "node:fs";
import { type RunConfig, runId, type RunResult } from "@tiedlora/experiments";

function resultOf(config: RunConfig): RunResult {
  return {
    id: runId(config),
    config,
    trainable: 10,
    total: 10,
    steps: 1,
    bestStep: 1,
    curve: [[1, 2]],
    valid: [[1, 1 + config.seed / 1000]],
    seconds: 0.001,
    tokensPerSecond: 1,
    device: "none",
    note: null,
    test: { count: 1, skipped: 0, loss: 1 + config.seed / 1000, perplexity: 2, scores: {} },
    samples: [],
  };
}

process.on("message", (order: { readonly type: string; readonly job: { readonly config: RunConfig } }) => {
  if (order.type !== "run") return;
  const { config } = order.job;
  appendFileSync(process.env["TIEDLORA_RUN_LOG"]!, `${config.seed}\n`);
  process.send!({ type: "done", result: resultOf(config) });
});
process.on("disconnect", () => process.exit());
