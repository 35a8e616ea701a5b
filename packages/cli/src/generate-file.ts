/** `tiedlora generate --prompts`: continues the prompts of a file, into a file that appears when it is complete. */
import { type FileHandle, open, readFile, rename, stat } from "node:fs/promises";
import { isRecord } from "@tiedlora/core";
import type { ChatMessage, Prompt, TextOptions, Tokenizer } from "@tiedlora/models";
import { DataError, readRecords } from "tiedlora";
import { writeError } from "tiedlora/internal/node";
import { textFile } from "tiedlora/node";
import { interruptible } from "./interrupt.ts";
import { Interrupted, type Output, paint } from "./output.ts";
import { predict } from "./predict.ts";
import { chatTokens, givenPrompt } from "./sample.ts";
import { UsageError } from "./settings.ts";
import type { Opened } from "./with-model.ts";

export interface PromptsFlags {
  readonly prompts: string;
  readonly out: string;
  readonly promptColumn?: string;
  readonly batch: number;
  readonly resume?: true;
  readonly force?: true;
  readonly chat?: true;
  readonly separator?: string;
}

type Fields = Readonly<Record<string, unknown>>;

interface Asked {
  readonly fields: Fields;
  readonly line: number;
  readonly prompt: Prompt;
}

/** The file that holds the answers until all are there. */
const unfinished = (out: string): string => `${out}.unfinished`;

/** Throws UsageError if the answers cannot be written where they should be. */
export async function checkAnswers({ out, resume, force }: PromptsFlags): Promise<void> {
  const exists = async (path: string): Promise<boolean> => (await stat(path).catch(() => null)) !== null;
  if (!force && (await exists(out)))
    throw new UsageError(`--out ${out}: this file exists; give another name, or --force`);
  const begun = await exists(unfinished(out));
  if (begun && !resume && !force)
    throw new UsageError(`--out ${out}: ${unfinished(out)} has answers of a run that was stopped; give --resume to go on, or --force to start again`); // prettier-ignore
  if (!begun && resume) throw new UsageError(`--resume: there is no ${unfinished(out)} to go on with`);
}

/** Continues all prompts of the file. Throws DataError with the line of a prompt that cannot be continued. */
export async function generateFile(
  opened: Opened,
  flags: PromptsFlags,
  options: TextOptions,
  output: Output,
): Promise<void> {
  const done = flags.resume ? await answersSoFar(flags.out) : [];
  const file = await open(unfinished(flags.out), "w").catch((error: unknown) => {
    throw writeError(flags.out, error);
  });
  let count = 0;
  try {
    await interruptible(async (signal) => {
      const write = async (line: Fields): Promise<void> => {
        await writeLine(file, line, flags.out);
        count++;
      };
      const rest = promptsAfter(done, promptsOf(opened, flags), flags, write);
      const batch = { ...options, rows: flags.batch, signal, seed: (options.seed ?? 0) + done.length };
      for await (const { item, text } of predict(opened, rest, ({ prompt }) => prompt, batch))
        await write({ ...item.fields, completion: text });
      if (!signal.aborted) return;
      output.info(`${paint("yellow", "interrupted:")} ${count} answers are in ${unfinished(flags.out)}; go on with --resume`); // prettier-ignore
      throw new Interrupted();
    });
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(unfinished(flags.out), flags.out);
  output.info(`${count} answers written to ${flags.out}${done.length > 0 ? `, ${done.length} of them by an earlier run` : ""}`); // prettier-ignore
}

async function writeLine(file: FileHandle, line: Fields, out: string): Promise<void> {
  await file.write(`${JSON.stringify(line)}\n`).catch((error: unknown) => {
    throw writeError(out, error);
  });
}

/** The whole lines that an earlier run has written. */
async function answersSoFar(out: string): Promise<Fields[]> {
  const lines = (await readFile(unfinished(out), "utf8")).split("\n").slice(0, -1);
  return lines.map((line, i): Fields => {
    let value: unknown = null;
    try {
      value = JSON.parse(line);
    } catch {
      // the error is below
    }
    if (isRecord(value)) return value;
    throw new DataError(unfinished(out), i + 1, "this is not an answer of an earlier run; start again with --force"); // prettier-ignore
  });
}

/** Writes the answers of an earlier run again, and yields the prompts without one. Throws if they are answers to other prompts. */
async function* promptsAfter(
  done: readonly Fields[],
  prompts: AsyncIterable<Asked>,
  { out, prompts: file }: PromptsFlags,
  write: (line: Fields) => Promise<void>,
): AsyncGenerator<Asked, void, undefined> {
  let at = 0;
  for await (const asked of prompts) {
    const known = done[at++];
    if (known === undefined) yield asked;
    else {
      const { completion, ...fields } = known;
      const { completion: _, ...own } = asked.fields;
      if (typeof completion !== "string" || JSON.stringify(fields) !== JSON.stringify(own))
        throw new DataError(unfinished(out), at, `this is not the answer to line ${asked.line} of ${file}; start again with --force`); // prettier-ignore
      await write({ ...asked.fields, completion });
    }
  }
}

/** The prompts of a file, in its order. */
async function* promptsOf(
  { tokenizer, separator }: Opened,
  flags: PromptsFlags,
): AsyncGenerator<Asked, void, undefined> {
  const joint = flags.separator ?? separator;
  const file = await textFile(flags.prompts);
  let any = false;
  for await (const { fields, line } of readRecords(file)) {
    any = true;
    const fail = (what: string): never => {
      throw new DataError(file.name, line, what);
    };
    if (flags.promptColumn === undefined && Array.isArray(fields["messages"])) {
      yield { fields, line, prompt: chatPrompt(tokenizer, fields["messages"] as ChatMessage[], fail) };
      continue;
    }
    const name = flags.promptColumn ?? ["prompt", "instruction", "text"].find((one) => one in fields);
    const text = name === undefined ? undefined : fields[name];
    if (typeof text !== "string" || text === "")
      fail(`there is no prompt; the fields are ${Object.keys(fields).join(", ")}; expected text in ${flags.promptColumn ?? "prompt, instruction or text, or a chat in messages"}`); // prettier-ignore
    const asked = text as string;
    const prompt = flags.chat ? chatPrompt(tokenizer, [{ role: "user", content: asked }], fail) : givenPrompt(tokenizer, asked, joint); // prettier-ignore
    yield { fields, line, prompt };
  }
  if (!any) throw new DataError(file.name, null, "the file has no prompts");
}

function chatPrompt(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  fail: (what: string) => never,
): Prompt {
  try {
    return chatTokens(tokenizer, messages);
  } catch (error) {
    return fail((error as Error).message);
  }
}
