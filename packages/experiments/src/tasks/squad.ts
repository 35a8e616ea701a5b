/** SQuAD v1.1 (Rajpurkar et al. 2016): answer a question by a span of a paragraph. The prompt is by Tied-LoRA's authors. */
import { EXACT_MATCH, F1 } from "./metrics.ts";
import { Fields, wholeJson } from "./reading.ts";
import { defineTask, type Task } from "./task.ts";

export const squad: Task = defineTask({
  name: "squad",
  title: "answer a question by a span of a paragraph",
  metrics: [EXACT_MATCH, F1],
  maxTokens: 32,
  stop: ["\n"],
  files: { train: [/^train.*v1\.1\.json$/], valid: [/^dev.*v1\.1\.json$/] },
  async *read(file) {
    for (const article of new Fields(await wholeJson(file), file.name).objects("data")) {
      for (const paragraph of article.objects("paragraphs")) {
        for (const asked of paragraph.objects("qas")) {
          yield {
            prompt: `Context: ${paragraph.text("context")} Question: ${asked.text("question").trim()} Answer:`,
            answers: asked.objects("answers").map((answer) => answer.text("text")),
          };
        }
      }
    }
  },
});
