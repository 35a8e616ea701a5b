/** The questions of a task as examples for a loss: single texts, or pairs and labeled answers where there are wrong ones. */
import type { Tokenizer } from "@tiedlora/models";
import { encodeExample, type EncodedExample, type ExampleKind } from "tiedlora";
import { type Question, type Task, trainingTexts } from "./task.ts";

interface Encoding {
  readonly tokenizer: Tokenizer;
  readonly maxLength: number;
  readonly kind: ExampleKind;
}

/** Encodes the questions of a task. Throws RangeError if none fits into `maxLength` tokens. */
export function encodedTask(
  task: Task,
  questions: readonly Question[],
  { tokenizer, maxLength, kind }: Encoding,
): EncodedExample[] {
  const encode = ({ prompt, completion }: Text): EncodedExample | null =>
    encodeExample({ prompt, completion, line: 0 }, tokenizer, { maxLength });
  const examples = EXAMPLES[kind](task, questions).flatMap(({ text, beside, label }) => {
    const example = encode(text);
    const second = beside === undefined ? null : encode(beside);
    if (example === null || (beside !== undefined && second === null)) return [];
    return { ...example, ...(second !== null && { beside: second }), ...(label !== undefined && { label }) };
  });
  if (examples.length > 0) return examples;
  throw new RangeError(
    `none of ${questions.length} examples of ${task.name} fits into ${maxLength} tokens; give a larger on.seq`,
  );
}

interface Text {
  readonly prompt: string;
  readonly completion: string;
}

interface Rows {
  readonly text: Text;
  /** The second row, if the loss needs one. */
  readonly beside?: Text;
  readonly label?: boolean;
}

const EXAMPLES: { readonly [K in ExampleKind]: (task: Task, questions: readonly Question[]) => Rows[] } = {
  texts: (task, questions) =>
    questions.flatMap((question) => trainingTexts(task, question)).map((text) => ({ text })),
  /** The right answer with each wrong one. */
  pairs: (_task, questions) =>
    questions.flatMap(({ prompt, answers, wrong = [] }) =>
      wrong.map((completion) => ({
        text: { prompt, completion: answers[0]! },
        beside: { prompt, completion },
      })),
    ),
  /** The right answer and one wrong one, so that there are as many of both; beside each, the answer to the prompt before. */
  labeled: (_task, questions) => {
    const all = questions.flatMap(({ prompt, answers, wrong = [] }) =>
      [answers[0]!, ...wrong.slice(0, 1)].map((completion, i) => ({
        text: { prompt, completion },
        label: i === 0,
      })),
    );
    return all.map((one, i) => {
      const { completion } = all.at(i - 2)!.text;
      return { ...one, beside: { prompt: one.text.prompt, completion } };
    });
  },
};
