/** One pass of a generation, for one batch or a changing one: a prompt is read into a cache, or one more token of each row. */
import type { TypedArray } from "@tiedlora/core";
import { type AdapterOptions, withAdapters } from "./adapter-choice.ts";
import { KvCache } from "./cache.ts";
import type { Decoder } from "./decoder.ts";
import { paddedSize } from "./sizes.ts";
import { readResult, TokenStep } from "./token-step.ts";

/** The smallest capacity of a cache. Larger ones are its multiples by powers of two, so that few programs serve all lengths. */
const SMALLEST_CACHE = 64;

/** Pads rows on the left to one length, rounded up so that few programs are needed; a cache hides the padding. */
export function leftPadded(rows: readonly (readonly number[])[]): number[][] {
  const length = paddedSize(Math.max(...rows.map((row) => row.length)));
  return rows.map((row) => [...Array<number>(length - row.length).fill(0), ...row]);
}

/** A cache for `input`, which is `rows` after padding. */
export function cacheFor(
  model: Decoder,
  input: readonly (readonly number[])[],
  rows: readonly (readonly number[])[],
): KvCache {
  const length = input[0]!.length;
  const pads = rows.map((row) => length - row.length);
  return new KvCache(model.config, model.device, pads, capacityFor(length));
}

/** A power of two with room for the prompt and at least one more token; `reserve` doubles the capacity when it is used up. */
function capacityFor(length: number): number {
  let capacity = SMALLEST_CACHE;
  while (capacity <= length) capacity *= 2;
  return capacity;
}

/** Reads `input` into the cache: the logits after the last token of each row, [batch · vocab]. */
export async function nextLogits(
  model: Decoder,
  input: readonly (readonly number[])[],
  cache: KvCache,
  { adapters }: AdapterOptions,
): Promise<TypedArray> {
  const options = adapters === undefined ? {} : { adapters };
  cache.reserve(input[0]!.length);
  if (model.streamed) return (await model.streamed.forward(input, { ...options, cache, last: true })).data();
  if (cache.begun)
    return readResult(withAdapters(model.adapters, options, () => stepOf(model, cache).next(input)));
  const logits = withAdapters(model.adapters, options, () => {
    const hidden = model.hidden(input, { cache });
    return model.logits(hidden.narrow(1, input[0]!.length - 1, 1));
  });
  cache.commit([logits]);
  return logits.data();
}

function stepOf(model: Decoder, cache: KvCache): TokenStep {
  const known = cache.companion;
  if (known instanceof TokenStep && known.model === model) return known;
  known?.free();
  const step = new TokenStep(model, cache);
  cache.companion = step;
  return step;
}
