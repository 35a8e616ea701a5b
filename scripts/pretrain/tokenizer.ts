/** The tokenizer of the base models. It is trained on stories and on the tasks' prompts, so that their words are tokens. */
import {
  document,
  TOY_TASK_NAMES,
  toyExamples,
  tokenizerFiles,
  trainBpe,
} from "@tiedlora/experiments/toy-tasks";
import { POSITIONS, RECIPE, SEEDS, VOCAB } from "./recipe.ts";

function* texts(): Generator<string> {
  for (let i = 0; i < RECIPE.tokenizerDocuments; i++) yield document(SEEDS.tokenizer, i);
  for (const task of TOY_TASK_NAMES) {
    const examples = toyExamples(task, "train", RECIPE.tokenizerExamples, SEEDS.tokenizer);
    for (const { prompt, completion } of examples) yield prompt + completion;
  }
}

/** The text of tokenizer.json and tokenizer_config.json, by file name. */
export function baseTokenizer(): Record<string, string> {
  const bpe = trainBpe(texts(), VOCAB);
  const { tokenizer, config } = tokenizerFiles(bpe, POSITIONS);
  return {
    "tokenizer.json": `${JSON.stringify(tokenizer)}\n`,
    "tokenizer_config.json": `${JSON.stringify(config, null, 2)}\n`,
  };
}
