/** GSM8K (Cobbe et al. 2021): solve a word problem, showing the working. The prompt is by Tied-LoRA's authors. */
import { readRecords } from "tiedlora";
import { NUMBER_FLEXIBLE, NUMBER_STRICT } from "./metrics.ts";
import { Fields } from "./reading.ts";
import { defineTask, type Task } from "./task.ts";

export const gsm8k: Task = defineTask({
  name: "gsm8k",
  title: "solve a word problem",
  metrics: [NUMBER_STRICT, NUMBER_FLEXIBLE],
  maxTokens: 256,
  stop: ["\n\n"],
  files: { train: [/^train\.jsonl$/], test: [/^test\.jsonl$/] },
  async *read(file) {
    for await (const { fields, line } of readRecords(file, "jsonl")) {
      const item = new Fields(fields, file.name, line);
      yield { prompt: `${item.text("question")} Answer:`, answers: [item.text("answer")] };
    }
  },
});
