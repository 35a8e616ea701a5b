/** Files of examples in every format, read from disk and encoded as for training. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadDataset } from "tiedlora";
import { textFile } from "tiedlora/node";
import type { Random } from "../random.ts";
import { type CaseFiles, sound, type Target, utf8 } from "../target.ts";

const WORDS = ["tea", "is", "hot", "blue, green", 'say "hi"', "ünïcödé", "😀", "a\tb", "x\ny", "", "0.5"];
const phrase = (random: Random): string =>
  Array.from({ length: 1 + random.below(4) }, () => random.pick(WORDS)).join(" ");

const quoted = (text: string): string => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const plain = (text: string): string => text.replaceAll(/[\t\n]/g, " ");

type Fields = (random: Random) => Record<string, unknown>;
const LAYOUTS: readonly Fields[] = [
  (random) => ({ prompt: phrase(random), completion: `${phrase(random)}!` }),
  (random) => ({
    instruction: phrase(random),
    input: random.chance(0.5) ? "" : phrase(random),
    output: `${phrase(random)}!`,
  }),
  (random) => ({ text: `${phrase(random)}!` }),
  (random) => ({ messages: [{ role: "user", content: phrase(random) }, { role: "assistant", content: `${phrase(random)}!` }] }), // prettier-ignore
];

const table = (rows: readonly Record<string, unknown>[], delimiter: string, cell: (text: string) => string): string =>
  [Object.keys(rows[0]!), ...rows.map((row) => Object.values(row).map(String))].map((row) => row.map(cell).join(delimiter)).join("\n"); // prettier-ignore

const FORMATS: Readonly<Record<string, (rows: readonly Record<string, unknown>[]) => string>> = {
  jsonl: (rows) => rows.map((row) => JSON.stringify(row)).join("\n"),
  json: (rows) => JSON.stringify(rows, null, 1),
  csv: (rows) => table(rows, ",", quoted),
  tsv: (rows) => table(rows, "\t", plain),
  txt: (rows) => rows.map((row) => Object.values(row).map(String).map(plain).join(" ")).join("\n"),
};

function seed(random: Random): CaseFiles {
  const format = random.pick(Object.keys(FORMATS));
  const layout = random.pick(format.startsWith("json") ? LAYOUTS : LAYOUTS.slice(0, 3));
  const rows = Array.from({ length: 1 + random.below(6) }, () => layout(random));
  const text = FORMATS[format]!(rows);
  const dressed = random.pick([
    text,
    `${text}\n`,
    `\ufeff${text}\n`,
    text.replaceAll("\n", format.startsWith("json") ? "\r\n" : "\n"),
  ]);
  return new Map([[`train.${format}`, utf8(dressed)]]);
}

/** Encodes each UTF-16 code unit as one token. */
const ENCODER = {
  encode: (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0)),
  chat: (messages: readonly { role: string; content: string }[]): string =>
    messages.map(({ role, content }) => `${role}: ${content}\n`).join(""),
  hasChatTemplate: true,
  bosId: null,
  eosId: null,
  padId: null,
};

export function data(): Target {
  return {
    seed,
    onDisk: true,
    async read(files, directory) {
      for (const name of files.keys()) {
        const bytes = readFileSync(join(directory, name));
        const [replaced, nul] = [bytes.includes("\ufffd"), bytes.includes(String.raw`\u0000`)]; // a file may contain these
        const file = await textFile(join(directory, name));
        const set = await loadDataset(file, ENCODER, { maxLength: 256, separator: "\n" });
        sound(set.examples.length > 0, "it has no examples");
        for (const { tokens, spans } of set.examples) {
          sound(tokens.length > 0 && tokens.length <= 256, `an example has ${tokens.length} tokens`);
          sound(
            spans.every(([a, b]) => a >= 0 && b > a && b <= tokens.length),
            `an example learns ${JSON.stringify(spans)}`,
          );
          sound(
            (nul || !tokens.includes(0)) && (replaced || !tokens.includes(0xfffd)),
            "it trains on bytes that were no text",
          );
        }
      }
    },
    words: ["prompt", "completion", "messages", "text", "role", "content", "assistant", "\0"],
  };
}
