/** How many tokens a training step of a sweep has at most, which decides whether its values fit into memory beside the weights. */
import type { Tokenizer } from "@tiedlora/models";
import { encodeExample } from "tiedlora";
import { BASELINE, type RunConfig } from "../../sweep/config.ts";
import { taskByName } from "../../tasks/index.ts";
import { runSplits, trainingTexts } from "../../tasks/task.ts";
import { directorySource, NO_FILES } from "../tasks.ts";

/** The questions of a task that are read to find out how long the longest one is. */
const MEASURED = 2000;

/** Of all runs that train, one for each task and its data, with the largest batch of the longest examples. */
export function largestRuns(configs: readonly RunConfig[]): readonly RunConfig[] {
  const largest = new Map<string, RunConfig>();
  for (const config of configs) {
    if (config.method === BASELINE) continue;
    const place = JSON.stringify([config.task, config.data]);
    const known = largest.get(place);
    if (known === undefined || config.batch * config.seq > known.batch * known.seq)
      largest.set(place, config);
  }
  return [...largest.values()];
}

/** The tokens of the largest batch of these runs, as found in the first examples of their tasks. */
export async function stepTokens(configs: readonly RunConfig[], tokenizer: Tokenizer): Promise<number> {
  let most = 0;
  for (const { task: name, data, batch, seq, examples } of configs) {
    const task = taskByName(name);
    const source = data === null ? NO_FILES : directorySource(data);
    const few = { ...examples, train: Math.min(examples.train, MEASURED) };
    const { train } = await runSplits(task, source, few);
    for (const text of train.flatMap((question) => trainingTexts(task, question)))
      most = Math.max(most, batch * (encodeExample({ ...text, line: 0 }, tokenizer, { maxLength: seq })?.tokens.length ?? 0)); // prettier-ignore
  }
  return most;
}
