/**
 * HellaSwag (Zellers et al. 2019): choose the ending of a scene. The model names the ending's number, as in the Tied-LoRA
 * paper; the likelihoods of the endings, the usual measure, are compared too.
 */
import { readRecords } from "tiedlora";
import { DataError } from "tiedlora";
import { LIKELIEST, LIKELIEST_NORMALIZED, SAME_CHOICE } from "./metrics.ts";
import { Fields } from "./reading.ts";
import { defineTask, type Task } from "./task.ts";

export const hellaswag: Task = defineTask({
  name: "hellaswag",
  title: "choose the ending of a scene",
  metrics: [SAME_CHOICE, LIKELIEST, LIKELIEST_NORMALIZED],
  maxTokens: 4,
  hasWrongAnswers: true,
  files: { train: [/^hellaswag_train\.jsonl$/], valid: [/^hellaswag_val\.jsonl$/] },
  async *read(file) {
    for await (const { fields, line } of readRecords(file, "jsonl")) {
      const item = new Fields(fields, file.name, line);
      const [context, endings, right] = [item.text("ctx"), item.texts("endings"), item.whole("label")];
      if (right < 0 || right >= endings.length)
        throw new DataError(file.name, line, `label ${right} of ${endings.length} endings`);
      const listed = endings.map((ending, i) => `${i + 1}:${ending}`).join(" ");
      yield {
        prompt: `Text: ${context} Endings: ${listed} Answer:`,
        answers: [String(right + 1)],
        wrong: endings.flatMap((_, i) => (i === right ? [] : [String(i + 1)])),
        choice: {
          context: withoutMarks(`${item.text("activity_label")}: ${context}`),
          endings: endings.map(withoutMarks),
          right,
        },
      };
    }
  },
});

/** Removes the remains of WikiHow's page layout, as the Language Model Evaluation Harness does: [title], [step], … */
function withoutMarks(text: string): string {
  return text
    .trim()
    .replaceAll(" [title]", ". ")
    .replace(/\[.*?\]/g, "")
    .replaceAll("  ", " ");
}
