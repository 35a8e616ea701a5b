/** The gym: five small tasks and the text of their world, generated; and the tokenizer trainer behind the base model. */
export { byteAlphabet, type Bpe, SPECIAL_TOKENS, tokenizerFiles, trainBpe } from "./bpe.ts";
export { hash32, Rng } from "./rng.ts";
export { corpus, document } from "./stories.ts";
export {
  type Example,
  GYM_TASK_NAMES,
  GYM_TASKS,
  gymExamples,
  type GymTask,
  type GymTaskName,
  type Split,
  splitOf,
} from "./tasks.ts";
