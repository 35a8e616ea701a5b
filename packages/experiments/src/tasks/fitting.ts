/** Which questions of a task fit into a number of tokens, and how long the shortest ones are if none does. */
import type { Tokenizer } from "@tiedlora/models";
import type { Question, Split } from "./task.ts";

export interface Fitting {
  /** Whether a question fits, with its first answer and the token that ends it: for `runSplits`. */
  readonly fits: (question: Question, split: Split) => boolean;
  /** The tokens of the shortest question that `fits` has seen of each split; Infinity before the first. */
  readonly shortest: Readonly<Record<Split, number>>;
}

/** For questions of at most `most` tokens. */
export function fitting(tokenizer: Tokenizer, most: number): Fitting {
  const shortest = { train: Infinity, valid: Infinity, test: Infinity };
  const fits = ({ prompt, answers }: Question, split: Split): boolean => {
    const length = tokenizer.encode(`${prompt} ${answers[0]}`).length + 1;
    shortest[split] = Math.min(shortest[split], length);
    return length <= most;
  };
  return { fits, shortest };
}
