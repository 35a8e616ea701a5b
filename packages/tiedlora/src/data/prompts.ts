/** Prompts that are made from several fields of a record by a template: Alpaca's, or a text with names of fields in braces. */
import { nearest } from "../nearest.ts";
import { DataError } from "./errors.ts";
import type { DataRecord } from "./records.ts";

/** The prompt of Stanford's Alpaca, with and without an input. */
const ALPACA = {
  with:
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that " +
    "appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
  without:
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n" +
    "### Instruction:\n{instruction}\n\n### Response:\n",
} as const;

/** The fields that may hold the completion, in the order in which they are looked for. */
const COMPLETIONS = ["completion", "output", "response", "answer"] as const;

const FIELD = /\{([\w.-]+)\}/g;

/**
 * Returns the reader of records whose prompt is `template`: "alpaca", or a text in which {name} stands for a field. The completion is the
 * field of that name, or else the first of completion, output, response and answer that the first record has. Throws DataError if a
 * field is missing.
 */
export function promptReader(
  file: string,
  first: DataRecord,
  template: string,
  completion: string | undefined,
  text: (record: DataRecord, name: string) => string,
): (record: DataRecord) => { prompt: string; completion: string; line: number } {
  const known = Object.keys(first.fields);
  const fields =
    template === "alpaca" ? ["instruction"] : [...template.matchAll(FIELD)].map(([, name]) => name!);
  if (fields.length === 0)
    throw new DataError(
      file,
      first.line,
      `the prompt template has no field in braces; expected alpaca, or a text such as "Question: {question}"`,
    );
  const answer = completion ?? COMPLETIONS.find((name) => known.includes(name));
  if (answer === undefined)
    throw new DataError(
      file,
      first.line,
      `which field holds the completion? There are ${known.join(", ")}; name it with --completion-column`,
    );
  for (const name of [...fields, answer]) {
    if (known.includes(name)) continue;
    const close = nearest(name, known);
    throw new DataError(
      file,
      first.line,
      `the prompt template needs "${name}"; there are ${known.join(", ")}${close === null ? "" : ` (did you mean "${close}"?)`}`,
    );
  }
  return (record) => {
    const input = record.fields["input"];
    const own =
      template !== "alpaca" ? template : input === undefined || input === "" ? ALPACA.without : ALPACA.with;
    return {
      prompt: own.replace(FIELD, (_, name: string) => text(record, name)),
      completion: text(record, answer),
      line: record.line,
    };
  };
}
