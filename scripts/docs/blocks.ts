/** The code blocks and links of a Markdown file. */

export interface Block {
  /** "README.md:12": the file and the line of the opening fence. */
  readonly place: string;
  /** What follows the opening fence: "ts", "sh". */
  readonly language: string;
  /** Marked `no-run` after the language: it needs something that a test has not, or takes too long. */
  readonly runs: boolean;
  readonly code: string;
}

/** All fenced blocks of `text`; the fences are lines of three backticks, with the language after the first. */
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

/** The targets of links to files of the repository, without their anchors. */
export function localLinks(text: string): string[] {
  const prose = text.replace(/^```[^]*?^```/gm, "");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = ""]) => target.replace(/#.*$/, ""))
    .filter((target) => target !== "" && !/^[a-z]+:/.test(target));
}

/** What the block says its `console.log` lines print: the comments behind them, in order. */
export function expectedOutput(code: string): string[] {
  return [...code.matchAll(/^\s*console\.log\(.*\);\s*\/\/ (.+)$/gm)].map(([, text = ""]) => text.trim());
}
