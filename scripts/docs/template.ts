/** The frame around every page: the navigation beside it, the page before and the page after below it. */
import { posix } from "node:path";
import { escapeHtml } from "./markdown.ts";

export interface Linked {
  /** Its place in the site: "guide/install.html". */
  readonly path: string;
  readonly title: string;
}

export interface Section {
  readonly title: string;
  readonly pages: readonly Linked[];
}

export interface Framed extends Linked {
  readonly content: string;
  readonly previous?: Linked | undefined;
  readonly next?: Linked | undefined;
}

/** The relative address of one page on another. */
export function relativeTo(from: string, to: string): string {
  return posix.relative(posix.dirname(from), to) || posix.basename(to);
}

export function frame(page: Framed, sections: readonly Section[]): string {
  const { path, title, content, previous, next } = page;
  const anchor = (to: Linked, before = "", after = ""): string => {
    const current = to.path === path ? ' aria-current="page"' : "";
    return `<a href="${relativeTo(path, to.path)}"${current}>${before}${escapeHtml(to.title)}${after}</a>`;
  };
  const group = ({ title: heading, pages }: Section): string =>
    `<h2>${escapeHtml(heading)}</h2>\n<ul>\n${pages.map((to) => `<li>${anchor(to)}</li>`).join("\n")}\n</ul>`;
  const steps = [previous && anchor(previous, "← "), next && anchor(next, "", " →")].map(
    (step) => step ?? "<span></span>",
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)} · tiedlora</title>
<link rel="stylesheet" href="${relativeTo(path, "style.css")}">
</head>
<body>
<a class="skip" href="#content">To the text</a>
<header><a href="${relativeTo(path, "index.html")}">tiedlora</a></header>
<nav aria-label="All pages">
<input type="checkbox" id="menu" aria-label="Show all pages"><label for="menu">All pages</label>
<div>
${sections.map(group).join("\n")}
</div>
</nav>
<main id="content">
${content}</main>
<footer>${steps.join("")}</footer>
</body>
</html>
`;
}
