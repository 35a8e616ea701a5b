/**
 * Trained rows of an embedding: the vectors of a few tokens change, those of all others stay. For tokens that were added to a
 * vocabulary, or reserved in it. PEFT calls it trainable tokens.
 */
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Site } from "../adapter/sites.ts";
import { checkTokens } from "../token-ids.ts";
import { inputEmbedding } from "./input-embedding.ts";
import type { Named } from "./recipe.ts";

export interface TrainedTokensOptions extends CommonOptions {
  /** The ids of the tokens, each once. Default: [0, 1, 2], in many vocabularies the special tokens. */
  readonly tokens?: readonly number[];
}

export function trainedTokens(options: TrainedTokensOptions, named: Named): PlainMethod<"rows" | "ids"> {
  const { tokens = [0, 1, 2], target, ...common } = options;
  checkTokens("trained-tokens: tokens", tokens);
  return defineMethod({
    ...common,
    ...named,
    target: inputEmbedding(target),
    factors: {
      rows: { shape: ["out", tokens.length], init: init.zeros(), on: (site) => isEmbedding(site, tokens) },
      ids: { shape: [tokens.length], init: init.indices(tokens), trained: false, bySeed: true },
    },
    product: ["rows"],
    lowRank: ({ rows, ids }, { dims }) => ({ A: ids.oneHot(dims.in), B: rows }),
  });
}

/** True for an embedding. Throws for a linear: tokens mean nothing there, and its first inputs would be trained in their place. */
function isEmbedding({ path, members, in: rows }: Site, tokens: readonly number[]): true {
  const beyond = tokens.find((id) => id >= rows);
  if (members.every(({ kind }) => kind === "embedding")) {
    if (beyond === undefined) return true;
    throw new RangeError(`trained-tokens: tokens has ${beyond}, and ${path} has ${rows} rows; give ids below ${rows}`); // prettier-ignore
  }
  throw new Error(
    `trained-tokens: ${path} is not an embedding; give the input embedding as the target: ["embed_tokens"], ["wte"] for GPT-2, or leave the target out`,
  );
}
