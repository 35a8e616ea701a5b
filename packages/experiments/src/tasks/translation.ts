/**
 * Translation from English into German: IWSLT 2017 (talks, XML) and Multi30k (captions, parallel lines). The Tied-LoRA paper
 * has the former, but its prompt is not known; this prompt is ours.
 */
import { DataError } from "tiedlora";
import { type TextFile } from "tiedlora";
import { wholeText } from "tiedlora/internal";
import { BLEU } from "./metrics.ts";
import { allLines } from "./reading.ts";
import { defineTask, type Question, type Task } from "./task.ts";

/** The file names of the two sides of an IWSLT set, as they are in the package of a language pair. */
const sides = (set: string): readonly RegExp[] => [
  new RegExp(`^IWSLT17\\.TED\\.${set}\\.\\w+-\\w+\\.en\\.xml$`),
  new RegExp(`^IWSLT17\\.TED\\.${set}\\.\\w+-\\w+\\.de\\.xml$`),
];

export const iwslt2017: Task = defineTask({
  name: "iwslt2017",
  title: "translate English talks into German",
  metrics: [BLEU],
  maxTokens: 96,
  stop: ["\n"],
  files: {
    train: [/^train\.tags\.\w+-\w+\.en$/, /^train\.tags\.\w+-\w+\.de$/],
    valid: sides("dev2010"),
    test: sides("tst2010"),
  },
  read: (english, german) =>
    english.name.endsWith(".xml") ? pairs(english, german, segments) : pairs(english, german, untagged),
});

export const multi30k: Task = defineTask({
  name: "multi30k",
  title: "translate English captions into German",
  metrics: [BLEU],
  maxTokens: 64,
  stop: ["\n"],
  files: {
    train: [/^train\.en(\.gz)?$/, /^train\.de(\.gz)?$/],
    valid: [/^val\.en(\.gz)?$/, /^val\.de(\.gz)?$/],
    test: [/^test_2016_flickr\.en(\.gz)?$/, /^test_2016_flickr\.de(\.gz)?$/],
  },
  read: (english, german) => pairs(english, german, allLines),
});

async function* pairs(
  english: TextFile,
  german: TextFile,
  read: (file: TextFile) => Promise<string[]>,
): AsyncGenerator<Question> {
  const [sources, targets] = await Promise.all([read(english), read(german)]);
  if (sources.length !== targets.length) {
    throw new DataError(
      german.name,
      null,
      `${targets.length} segments, but ${sources.length} in ${english.name}; the two must correspond`,
    );
  }
  for (const [i, source] of sources.entries()) {
    yield { prompt: `English: ${source.trim()} German:`, answers: [targets[i]!.trim()] };
  }
}

/** The text of each <seg> of the mteval format, with XML's five entities and character references replaced. */
async function segments(file: TextFile): Promise<string[]> {
  const text = await wholeText(file);
  const found = [...text.matchAll(/<seg\s[^>]*>(.*?)<\/seg>/gs)].map(([, inside]) => unescapeXml(inside!));
  if (found.length === 0)
    throw new DataError(file.name, null, "there is no <seg> in it; expected IWSLT's XML");
  return found;
}

/** The training files' lines, without those that hold only a tag: <url>, <title>, … */
async function untagged(file: TextFile): Promise<string[]> {
  return (await allLines(file)).filter((line) => !line.trimStart().startsWith("<"));
}

const ENTITIES: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function unescapeXml(text: string): string {
  return text.replace(/&(#x[\da-f]+|#\d+|\w+);/gi, (whole, name: string) => {
    if (!name.startsWith("#")) return ENTITIES[name] ?? whole;
    const code = name[1]?.toLowerCase() === "x" ? parseInt(name.slice(2), 16) : Number(name.slice(1));
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
