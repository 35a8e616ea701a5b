/** The colors of code, by name: style.css says what each is in light and in dark, so that code is highlighted once for both. */
import type { MarkdownOptions } from "vitepress";

const color = (name: string): string => `var(--code-${name})`;

/** For each color, the scopes of TextMate's grammars that have it. */
const SCOPES: Readonly<Record<string, readonly string[]>> = {
  comment: ["comment", "punctuation.definition.comment"],
  string: ["string", "punctuation.definition.string"],
  number: ["constant", "support.constant", "variable.other.constant", "entity.name.tag.yaml"],
  keyword: ["keyword", "storage", "variable.language"],
  function: ["entity.name.function", "support.function"],
  type: ["entity.name.type", "support.type", "support.class", "entity.other.inherited-class"],
};

export const codeTheme: NonNullable<MarkdownOptions["theme"]> = {
  name: "names",
  settings: [
    { settings: { foreground: color("text"), background: color("background") } },
    ...Object.entries(SCOPES).map(([name, scope]) => ({
      scope: [...scope],
      settings: { foreground: color(name) },
    })),
  ],
};
