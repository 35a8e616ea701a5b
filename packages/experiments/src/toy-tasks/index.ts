/**
 * Toy tasks: five small tasks and the text of their world, generated; and the tokenizer trainer behind the base model.
 * @module
 */
export { byteAlphabet, type Bpe, SPECIAL_TOKENS, tokenizerFiles, trainBpe } from "./bpe.ts";
export { type Levels, LEVELS, type ToyTaskName } from "./levels.ts";
export { hash32, Rng } from "./rng.ts";
export { corpus, document } from "./stories.ts";
export {
  type Example,
  TOY_TASK_NAMES,
  TOY_TASKS,
  toyExamples,
  type ToyTask,
  type Split,
  splitOf,
} from "./tasks.ts";
