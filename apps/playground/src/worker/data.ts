/** The data of an experiment: a toy task, or text that the visitor has pasted. */
import { batchesOf, type Batch, encodeExample, type EncodedExample } from "tiedlora";
import { type Example, TOY_TASK_NAMES, toyExamples } from "@tiedlora/experiments/toy-tasks";
import type { Pretrained } from "@tiedlora/models";
import type { Experiment, Sample } from "../protocol.ts";

const TRAIN_EXAMPLES = 2000;
const SHOWN = 3;
const MAX_TOKENS = 97;
const ENCODED_AT_ONCE = 50;

export interface Data {
  readonly batch: (step: number) => Batch;
  readonly samples: readonly Sample[];
}

/** Encodes the data. `between` is awaited every few examples; null if it resolves to false. Throws if no example is usable. */
export async function dataOf(
  experiment: Experiment,
  base: Pretrained,
  between: () => Promise<boolean>,
): Promise<Data | null> {
  const { seed, batch } = experiment;
  if (!(await between())) return null;
  const { train, shown } = examplesOf(experiment);
  const encoded: EncodedExample[] = [];
  for (const [i, example] of train.entries()) {
    if (i % ENCODED_AT_ONCE === 0 && !(await between())) return null;
    const one = encodeExample({ ...example, line: i + 1 }, base.tokenizer, { maxLength: MAX_TOKENS });
    if (one !== null) encoded.push(one);
  }
  if (encoded.length === 0) {
    throw new Error(`every prompt of the text is longer than ${MAX_TOKENS} tokens; paste shorter lines`);
  }
  return {
    batch: batchesOf(encoded, { batch, maxLength: MAX_TOKENS, seed, padId: base.padId }),
    samples: shown.map(({ prompt, completion }) => ({ prompt, right: completion.trim() })),
  };
}

function examplesOf({ task, text, seed }: Experiment): { train: Example[]; shown: Example[] } {
  if (task === "text") return pasted(text);
  const name = TOY_TASK_NAMES.find((one) => one === task);
  if (name === undefined) throw new Error(`there is no task "${task}"`);
  return {
    train: toyExamples(name, "train", TRAIN_EXAMPLES, seed),
    shown: toyExamples(name, "valid", SHOWN, seed),
  };
}

/** Parses pasted text, in which each line is an example: `prompt => completion`, or text alone. */
function pasted(text: string): { train: Example[]; shown: Example[] } {
  const train = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .map((line) => {
      const at = line.indexOf("=>");
      if (at < 0) return { prompt: "", completion: line };
      return { prompt: line.slice(0, at).trimEnd(), completion: ` ${line.slice(at + 2).trim()}` };
    });
  if (train.length === 0) {
    throw new Error(
      'there is no text; paste lines such as "question => answer", or any text, a sentence a line',
    );
  }
  const shown = train.slice(0, SHOWN).map(({ prompt, completion }) => {
    const words = completion.split(" ");
    const head = words.slice(0, Math.ceil(words.length / 3)).join(" ");
    return prompt === ""
      ? { prompt: head, completion: completion.slice(head.length) }
      : { prompt, completion };
  });
  return { train, shown };
}
