/**
 * DialogSum (Chen et al. 2021): summarize a conversation in a sentence or two. The test set has three references for each. The
 * Tied-LoRA paper's prompt is not known; ours has the form of its other prompts.
 */
import { readRecords } from "tiedlora";
import { ROUGE_1, ROUGE_2, ROUGE_L } from "./metrics.ts";
import { Fields } from "./reading.ts";
import { defineTask, type Task } from "./task.ts";

export const dialogsum: Task = defineTask({
  name: "dialogsum",
  title: "tell a conversation in a sentence or two",
  metrics: [ROUGE_L, ROUGE_1, ROUGE_2],
  maxTokens: 80,
  stop: ["\n"],
  files: {
    train: [/^dialogsum\.train\.jsonl$/],
    valid: [/^dialogsum\.dev\.jsonl$/],
    test: [/^dialogsum\.test\.jsonl$/],
  },
  async *read(file) {
    for await (const { fields, line } of readRecords(file, "jsonl")) {
      const item = new Fields(fields, file.name, line);
      yield { prompt: `Dialogue: ${item.text("dialogue")} Summary:`, answers: summaries(item) };
    }
  },
});

/** `summary`, or `summary1`, `summary2`, … */
function summaries(item: Fields): string[] {
  if (item.has("summary")) return [item.text("summary")];
  const names: string[] = [];
  for (let i = 1; i === 1 || item.has(`summary${i}`); i++) names.push(`summary${i}`);
  return names.map((name) => item.text(name));
}
