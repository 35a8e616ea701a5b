/** A made-up result: its losses are functions of seed and learning rate. */
import { type Outcome, type RunConfig, runId } from "@tiedlora/experiments";

export function idleResult(config: RunConfig): Outcome {
  const steps = config.until ?? config.steps;
  return {
    id: runId(config),
    config,
    trainable: 10,
    total: 10,
    steps,
    bestStep: steps,
    curve: [[1, 2]],
    valid: [[steps, 1 + config.seed / 1000 + config.lr]],
    seconds: 0.001,
    tokensPerSecond: 1,
    device: "none",
    note: null,
    ...(config.until === undefined && {
      test: { count: 1, skipped: 0, loss: 1 + config.seed / 1000, perplexity: 2, scores: {} },
      samples: [],
    }),
  };
}
