/** Continues many prompts, as many at once as there are rows, and gives the texts in the order of the prompts. */
import { ContinuousBatch, stopTokensOf, TextStream } from "@tiedlora/models";
import type { Prompt, TextOptions } from "@tiedlora/models";
import type { Opened } from "./with-model.ts";

/** How prompts are continued. */
export interface PredictOptions extends Omit<TextOptions, "adapters" | "stopTokens"> {
  /** The prompts that are continued together. */
  readonly rows: number;
}

/** Prompts that wait for their turn, in multiples of the rows. */
const AHEAD = 4;

/**
 * Yields, for each item in its order, its text. A prompt's text does not depend on the other prompts, up to rounding; prompt i is
 * sampled with the seed plus i. An error of one prompt is thrown at its turn.
 */
export async function* predict<T>(
  { model, tokenizer, adapter }: Pick<Opened, "model" | "tokenizer" | "adapter">,
  items: Iterable<T> | AsyncIterable<T>,
  promptOf: (item: T) => Prompt,
  { rows, stop = [], seed = 0, signal, ...options }: PredictOptions,
): AsyncGenerator<{ readonly item: T; readonly text: string }, void, undefined> {
  const batch = new ContinuousBatch(model, { rows });
  const chosen = adapter === null ? {} : { adapter: adapter.name };
  const stopTokens = stopTokensOf(model, tokenizer);
  let left = false;
  const complete = async (prompt: Prompt, own: number): Promise<string> => {
    const ids = typeof prompt === "string" ? tokenizer.encode(prompt) : prompt;
    const stream = new TextStream(tokenizer, ids, stop);
    let text = "";
    for await (const { token } of batch.generate(ids, { ...options, ...chosen, stopTokens, seed: own })) {
      text += stream.push(token);
      if (stream.stopped || left || signal?.aborted) break;
    }
    return text + stream.end();
  };
  const open: { readonly item: T; readonly text: Promise<string> }[] = [];
  const next = async (): Promise<{ readonly item: T; readonly text: string }> => {
    const { item, text } = open.shift()!;
    return { item, text: await text };
  };
  let count = 0;
  try {
    for await (const item of items) {
      if (signal?.aborted) return;
      const text = complete(promptOf(item), seed + count++);
      text.catch(() => undefined); // it is thrown when it is its turn
      open.push({ item, text });
      if (open.length < AHEAD * rows) continue;
      const done = await next();
      if (signal?.aborted) return;
      yield done;
    }
    while (open.length > 0) {
      const done = await next();
      if (signal?.aborted) return;
      yield done;
    }
  } finally {
    left = true; // the others end soon, before the device may be closed
    await Promise.allSettled(open.map(({ text }) => text));
  }
}
