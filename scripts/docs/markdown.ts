/** Markdown as HTML: headings that can be linked to, highlighted code, links sent where the caller says. */
import highlighter from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import css from "highlight.js/lib/languages/css";
import json from "highlight.js/lib/languages/json";
import typescript from "highlight.js/lib/languages/typescript";
import yaml from "highlight.js/lib/languages/yaml";
import MarkdownIt, { type Token } from "markdown-it";

for (const [name, language] of Object.entries({ bash, css, json, typescript, yaml }))
  highlighter.registerLanguage(name, language);

const LANGUAGES: Readonly<Record<string, string>> = {
  css: "css",
  js: "typescript",
  json: "json",
  mjs: "typescript",
  sh: "bash",
  ts: "typescript",
  yaml: "yaml",
};

export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** Code as HTML; `language` is the word behind the fence or the ending of a file. One line of code is one line of HTML. */
export function highlight(code: string, language: string): string {
  const known = LANGUAGES[language];
  return known === undefined ? escapeHtml(code) : highlighter.highlight(code, { language: known }).value;
}

/** The anchor of a heading, as GitHub makes it. */
export function slug(heading: string): string {
  return heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .replaceAll(" ", "-");
}

export interface Heading {
  readonly level: number;
  readonly id: string;
  readonly text: string;
}

export interface Rendered {
  readonly html: string;
  readonly headings: readonly Heading[];
}

/** Renders `text`; `link` gets the target of every link and image, and gives what is to stand there. */
export function renderMarkdown(text: string, link: (target: string) => string): Rendered {
  const markdown = new MarkdownIt({ html: true });
  markdown.renderer.rules.fence = (tokens, i): string => fence(tokens[i]!);
  markdown.renderer.rules.table_open = (): string => '<div class="table" tabindex="0"><table>\n';
  markdown.renderer.rules.table_close = (): string => "</table></div>\n";
  const tokens = markdown.parse(text, {});
  const headings = addAnchors(tokens);
  redirect(tokens, link);
  return { html: markdown.renderer.render(tokens, markdown.options, {}), headings };
}

function fence({ info, content }: Token): string {
  const [language = ""] = info.trim().split(/\s+/);
  return `<pre tabindex="0"><code>${highlight(content.trimEnd(), language)}</code></pre>\n`;
}

function addAnchors(tokens: readonly Token[]): Heading[] {
  const headings: Heading[] = [];
  const seen = new Map<string, number>();
  for (const [i, token] of tokens.entries()) {
    if (token.type !== "heading_open") continue;
    const text = (tokens[i + 1]?.children ?? []).map(({ content }) => content).join("");
    const plain = slug(text);
    const before = seen.get(plain) ?? 0;
    seen.set(plain, before + 1);
    const id = before === 0 ? plain : `${plain}-${before}`;
    token.attrSet("id", id);
    headings.push({ level: Number(token.tag.slice(1)), id, text });
  }
  return headings;
}

const TARGET: Readonly<Record<string, string>> = { link_open: "href", image: "src" };

function redirect(tokens: readonly Token[], link: (target: string) => string): void {
  for (const token of tokens) {
    const attribute = TARGET[token.type];
    const target = attribute === undefined ? null : token.attrGet(attribute);
    if (attribute !== undefined && target !== null) token.attrSet(attribute, link(target));
    if (token.children !== null) redirect(token.children, link);
  }
}
