/**
 * Writes the pages of the guide, the lessons, the reference of the commands and the sources as Markdown for VitePress. Links to
 * files of the repository become links to a page of the site, to a copied file, or to a page that shows the source.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, extname, join, posix } from "node:path";
import { commandReference } from "./commands.ts";
import { declarations } from "./declarations.ts";
import { readLesson } from "./lesson.ts";
import {
  COPIED,
  guidePages,
  isFolder,
  isLesson,
  lessonFiles,
  PAGES,
  read,
  ROOT,
  sitePath,
  titleOf,
} from "./navigation.ts";

/** Generates the text that replaces the HTML comment with this name in a page. */
const GENERATED: Readonly<Record<string, () => string>> = {
  commands: commandReference,
  lessons: () =>
    lessonFiles()
      .map((file, i) => `${i + 1}. [${titleOf(file).replace(/^Lesson \d+\. /, "")}](../${file})`)
      .join("\n"),
};

/** The only page of docs/ whose links to declarations lead to API pages; on all other pages they lead to the source. */
const API_PAGE = "docs/api.md";

/** The API pages of declarations, by "file#name", and the sources to which API pages link. */
export interface ApiLinks {
  readonly pages: ReadonlyMap<string, string>;
  readonly sources: readonly string[];
}

/** Writes all pages except those of the API into `folder`. Throws if a page of docs/ is not in the navigation. */
export function writePages(folder: string, api: ApiLinks): void {
  guidePages(); // throws if a page is not in the navigation
  const sources = new Set(api.sources);
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  const linkFrom = (from: string, target: string): string => {
    const to = targetOf(from, target);
    if (to === null) return `(${target})`;
    const page = from === API_PAGE ? api.pages.get(to.file + to.anchor) : undefined;
    if (page !== undefined) return `(/${page})`;
    if (!PAGES.includes(to.file) && existsSync(join(ROOT, to.file))) sources.add(to.file);
    return siteLink(to.file, to.anchor);
  };
  for (const file of PAGES)
    write(
      sitePath(file),
      withLinks(markdownOf(file), (target) => linkFrom(file, target)),
    );
  for (const file of sources) {
    // the set grows: the page of a folder adds the files in it
    if (!COPIED.test(file)) write(sitePath(file), sourcePage(file, sources));
    else {
      const path = join(folder, "public", sitePath(file));
      mkdirSync(dirname(path), { recursive: true });
      copyFileSync(join(ROOT, file), path);
    }
  }
}

function markdownOf(file: string): string {
  if (isLesson(file)) return readLesson(file, read(file)).markdown;
  return read(file).replace(/^<!-- (\w+) -->$/gm, (comment, name: string) => GENERATED[name]?.() ?? comment);
}

/** Replaces each "(target)" of links and pictures in `text` by `link(target)`; code blocks stay unchanged. */
export function withLinks(text: string, link: (target: string) => string): string {
  return text
    .split(/^(```[^]*?^```)/m)
    .map((part) =>
      part.startsWith("```") ? part : part.replace(/(?<=\])\(([^)\s]+)\)/g, (_, to: string) => link(to)),
    )
    .join("");
}

/** The file of the repository to which a link leads; null for other sites and for anchors on the same page. */
function targetOf(from: string, target: string): { file: string; anchor: string } | null {
  if (/^([a-z][a-z+.-]*:|#)/i.test(target)) return null;
  const [path = "", anchor] = target.split("#");
  const full = posix.normalize(posix.join(posix.dirname(from), path)).replace(/\/$/, "");
  const file = isFolder(full) ? pageOfFolder(full) : full;
  return { file, anchor: anchor === undefined ? "" : `#${anchor}` };
}

/** The page that stands for a folder; the folder itself if there is none. */
function pageOfFolder(folder: string): string {
  if (folder === "lessons") return "docs/lessons.md";
  const readme = `${folder}/README.md`;
  return existsSync(join(ROOT, readme)) ? readme : folder;
}

/** A link of the site, in parentheses. If the anchor names a declaration in a source, it becomes the anchor of its line. */
function siteLink(file: string, anchor: string): string {
  const path = `/${sitePath(file)}`;
  if (!path.startsWith("/source/") || anchor === "" || !existsSync(join(ROOT, file)))
    return `(${path}${anchor})`;
  const line = declarations(file, read(file)).get(anchor.slice(1));
  return `(${path}${line === undefined ? anchor : `#L${line + 1}`})`;
}

const FENCES: Readonly<Record<string, string>> = { mjs: "js", "": "text" };

/** A source with more characters than this is data, and is shown without syntax highlighting. */
const LARGE = 100_000;

/** The page of a source with numbered lines, or of a folder with a list of its files, which are added to `sources`. */
function sourcePage(file: string, sources: Set<string>): string {
  const head = `---\ntitle: ${file}\npageClass: source\noutline: false\naside: false\nprev: false\nnext: false\n---\n\n# ${file}\n\n`;
  if (!isFolder(file)) {
    const ending = extname(file).slice(1);
    const language = read(file).length > LARGE ? "text" : (FENCES[ending] ?? ending);
    return `${head}\`\`\`\`${language}:line-numbers\n${read(file)}\`\`\`\`\n`;
  }
  const names = readdirSync(join(ROOT, file), { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => `${file}/${name}`);
  for (const name of names) sources.add(name);
  return `${head}${names.map((name) => `- [${name}]${siteLink(name, "")}`).join("\n")}\n`;
}
