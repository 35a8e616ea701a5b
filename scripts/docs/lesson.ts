/** Converts a lesson to Markdown: its opening comment becomes text, and so do comments that begin with `// ---`. */

export interface Lesson {
  /** Such as "Lesson 1. Tensors are recipes". */
  readonly title: string;
  readonly markdown: string;
}

/** Reads a lesson. Throws if the file does not open with a comment whose first line is the title. */
export function readLesson(file: string, code: string): Lesson {
  const opening = /^\/\*\*\n(?<text>[^]*?)\n \*\/\n/.exec(code);
  const text = opening?.groups?.["text"]?.replace(/^ \* ?/gm, "");
  const title = text?.split("\n", 1)[0]?.replace(/\.(?: {2,}.*)?$/, "");
  if (opening === null || text === undefined || title === undefined || title === "")
    throw new Error(`${file}: expected a comment at the top, whose first line is the title`);
  const command = /npx tsx .*$/m.exec(text)?.[0];
  const prose = text
    .slice(text.indexOf("\n") + 1)
    .replace(/^ *npx tsx .*$/m, "")
    .trim();
  const parts = [
    `# ${title}`,
    prose,
    ...(command === undefined ? [] : [`Run it: [${file}](../${file})`, fenced("sh", command)]),
    ...sections(code.slice(opening[0].length)),
  ];
  return { title, markdown: `${parts.join("\n\n")}\n` };
}

function sections(code: string): string[] {
  return code
    .split(/^(?=\/\/ --- )/m)
    .flatMap((part) => {
      const comment = /^\/\/ --- (?:\d+\. )?(?<text>.*(?:\n\/\/ ?.*)*)/.exec(part);
      if (comment === null) return [fenced("ts", part)];
      const [heading, rest] = headingOf((comment.groups?.["text"] ?? "").replace(/\n\/\/ ?/g, " "));
      return [`## ${heading}`, rest, fenced("ts", part.slice(comment[0].length))];
    })
    .filter((part) => part !== "");
}

/** Splits a text after its first sentence, which is the heading. */
function headingOf(text: string): [heading: string, rest: string] {
  const end = /[.:](?= [A-Z0-9])/.exec(text)?.index ?? text.length;
  return [text.slice(0, end).replace(/\.$/, ""), text.slice(end + 1).trim()];
}

function fenced(language: string, code: string): string {
  return code.trim() === "" ? "" : `\`\`\`${language}\n${code.trim()}\n\`\`\``;
}
