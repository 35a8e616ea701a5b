/** Results of runs that nobody performed, for tests of what is done with thousands of them. */
import { BASELINE, type Outcome, type RunConfig, runId } from "../../src/sweep/config.ts";

/** A result that was not trained, with a curve as long as they get. */
export function pretended(config: RunConfig): Outcome {
  const loss = 2 + Math.sin(config.lr * 1e4);
  const curve = Array.from({ length: 60 }, (_, i) => [i, 2 - i / 60.7] as const);
  return {
    id: runId(config), config, trainable: config.method === BASELINE ? 0 : 8, total: 9, steps: config.steps, bestStep: 150, curve,
    valid: [[50, 4], [100, 3.5], [150, loss], [200, 3.7]], seconds: 5, tokensPerSecond: 9, device: "none", note: null,
    test: { count: 9, skipped: 0, loss, perplexity: Math.exp(loss), scores: { accuracy: 50 } },
    samples: [1, 2, 3].map(() => ({ prompt: "a question of some length", text: "an answer", answer: "the answer" })),
  }; // prettier-ignore
}
