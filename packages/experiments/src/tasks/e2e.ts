/**
 * E2E NLG (Novikova et al. 2017): put a list of slots and values into words. There are several references for each list. The
 * Tied-LoRA paper does not have this task; the prompt is ours.
 */
import { readRecords } from "tiedlora";
import type { TextFile } from "tiedlora";
import { BLEU } from "./metrics.ts";
import { Fields } from "./reading.ts";
import { defineTask, type Question, type Task } from "./task.ts";

export const e2e: Task = defineTask({
  name: "e2e",
  title: "say what a list of slots and values means",
  metrics: [BLEU],
  maxTokens: 80,
  stop: ["\n"],
  trainOnAll: true,
  files: { train: [/^trainset\.csv$/], valid: [/^devset\.csv$/], test: [/^testset_w_refs\.csv$/] },
  read: (file) => meanings(file),
});

interface Meaning {
  readonly meaning: string;
  readonly answers: string[];
}

/** The questions of a file: rows with the same meaning follow one another, and become one question with all their texts. */
async function* meanings(file: TextFile): AsyncGenerator<Question> {
  let open: Meaning | undefined;
  const question = ({ meaning, answers }: Meaning): Question => ({
    prompt: `Meaning: ${meaning} Text:`,
    answers,
  });
  for await (const { fields, line } of readRecords(file, "csv")) {
    const row = new Fields(fields, file.name, line);
    const [meaning, text] = [row.text("mr"), row.text("ref")];
    if (open?.meaning === meaning) {
      open.answers.push(text);
    } else {
      if (open !== undefined) yield question(open);
      open = { meaning, answers: [text] };
    }
  }
  if (open !== undefined) yield question(open);
}
