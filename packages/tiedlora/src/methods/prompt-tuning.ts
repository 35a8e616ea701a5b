/**
 * Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained vectors that every sequence begins with, in front of its tokens' embeddings. The
 * positions of the tokens begin after them, as in PEFT. Rank and alpha have no meaning.
 */
import { checkWhole, refuse } from "@tiedlora/core/arguments";
import { init } from "../init.ts";
import { defineMethod, type CommonOptions, type Method, type PrepareContext } from "../method.ts";
import type { Site } from "../adapter/sites.ts";
import { INPUT_EMBEDDINGS, inputEmbedding } from "./input-embedding.ts";
import type { Named } from "./recipe.ts";

export interface PromptTuningOptions extends CommonOptions {
  /** The number of vectors. Default: as many as `tokens`, or 8. */
  readonly length?: number;
  /** Tokens from whose embeddings the vectors start, again from the first one if they are too few. Default: normal numbers. */
  readonly tokens?: readonly number[];
}

export function promptTuning(options: PromptTuningOptions, named: Named): Method<"prompt"> {
  const { tokens, target, ...common } = options;
  if (tokens !== undefined && (!Array.isArray(tokens) || tokens.length === 0))
    refuse(
      "prompt-tuning: tokens",
      tokens,
      "list of ids of tokens",
      "at least one, e.g. of the task's description",
    );
  for (const token of tokens ?? []) checkWhole("prompt-tuning: a token", token, 0);
  const length = checkWhole("prompt-tuning: length", options.length ?? tokens?.length ?? 8, 1);
  return defineMethod<"prompt">({
    ...common,
    ...named,
    target: inputEmbedding(target),
    factors: {
      prompt: {
        shape: [length, "out"],
        init: tokens ? init.fromWeight() : init.normal(0.02),
        on: isInput,
      },
    },
    product: [],
    forward: (_factors, { y }) => y,
    prompt: ({ prompt }) => prompt,
    ...(tokens && {
      prepare: (context) => Promise.resolve({ prompt: rowsOf(context, tokens, length) }),
    }),
  });
}

/** The rows of an embedding for tokens, [length, out]; its weight is given as [out, in]. */
function rowsOf({ weight, dims }: PrepareContext, tokens: readonly number[], length: number): Float32Array {
  const strange = tokens.find((token) => token >= dims.in);
  if (strange !== undefined)
    throw new RangeError(
      `prompt-tuning: token ${strange} given; the vocabulary has ${dims.in}: give ids below that`,
    );
  const { out } = dims;
  return Float32Array.from({ length: length * out }, (_, i) => {
    const token = tokens[Math.floor(i / out) % tokens.length]!;
    return weight[(i % out) * dims.in + token]!;
  });
}

/** True for an input embedding. Throws for another module, at which no sequence begins: what was trained there would have no effect. */
function isInput({ path }: Site): true {
  if (INPUT_EMBEDDINGS.some((name) => path === name || path.endsWith(`.${name}`))) return true;
  throw new Error(
    `prompt-tuning: ${path} is not the input embedding; leave out the target, or give it: ["embed_tokens"], ["wte"] for GPT-2`,
  );
}
