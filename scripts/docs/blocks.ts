/** The code blocks and links of a Markdown file. */

export interface Block {
  /** "README.md:12": the file and the line of the opening fence. */
  readonly place: string;
  /** The language after the opening fence, such as "ts" or "sh". */
  readonly language: string;
  /** False if the block is marked `no-run`: it needs something that tests do not have, or takes too long. */
  readonly runs: boolean;
  readonly code: string;
}

/** All fenced blocks of `text`. Fences are lines of three backticks; the language follows the opening fence. */
export function codeBlocks(file: string, text: string): Block[] {
  const blocks: Block[] = [];
  let open: { line: number; info: string; code: string[] } | undefined;
  for (const [i, line] of text.split("\n").entries()) {
    if (!line.startsWith("```")) open?.code.push(line);
    else if (open === undefined) open = { line: i + 1, info: line.slice(3), code: [] };
    else {
      const [language = "", ...flags] = open.info.split(" ").filter((word) => word !== "");
      blocks.push({
        place: `${file}:${open.line}`,
        language,
        runs: !flags.includes("no-run"),
        code: open.code.join("\n"),
      });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line}: the code block has no end`);
  return blocks;
}

/** The targets of links to files of the repository, without anchors. */
export function localLinks(text: string): string[] {
  const prose = text.replace(/^```[^]*?^```/gm, "");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = ""]) => target.replace(/#.*$/, ""))
    .filter((target) => target !== "" && !/^[a-z]+:/.test(target));
}

/** The expected output of a block: the comments after its `console.log` lines, in order. */
export function expectedOutput(code: string): string[] {
  return [...code.matchAll(/^\s*console\.log\(.*\);\s*\/\/ (.+)$/gm)].map(([, text = ""]) => text.trim());
}
