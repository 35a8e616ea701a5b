/**
 * The site: which pages there are, and where a link of the repository's files leads in it. Markdown files and lessons become
 * pages; every other file that a page links to becomes one too, as source, or is copied if it is a picture or a page already.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, posix, resolve } from "node:path";
import { commandReference } from "./commands.ts";
import { readLesson } from "./lesson.ts";
import { renderMarkdown } from "./markdown.ts";
import { sourcePage } from "./source.ts";
import { frame, type Linked, relativeTo, type Section } from "./template.ts";

export const ROOT: string = resolve(import.meta.dirname, "../..");

/** The navigation: headings, and the files below them in the order of reading. */
const NAVIGATION: readonly (readonly [heading: string, files: readonly string[]])[] = [
  [
    "Guide",
    [
      "docs/README.md",
      "docs/guide/install.md",
      "docs/guide/first-run.md",
      "docs/playground.md",
      "docs/guide/your-data.md",
      "docs/guide/your-model.md",
      "docs/guide/your-method.md",
      "docs/guide/your-backend.md",
      "docs/guide/troubleshooting.md",
    ],
  ],
  ["How it works", ["docs/read-the-core.md", "docs/lessons.md"]],
  ["Reference", ["docs/commands.md", "docs/api.md", ...packageReadmes()]],
  ["Measured", ["docs/benchmarks.md", "docs/paper-grid.md"]],
  ["Project", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]],
];

/** What stands in a page in place of the comment of this name. */
const GENERATED: Readonly<Record<string, () => string>> = {
  commands: commandReference,
  lessons: () =>
    lessonFiles()
      .map((file, i) => `${i + 1}. [${titleOf(file).replace(/^Lesson \d+\. /, "")}](../${file})`)
      .join("\n"),
};

const COPIED = /\.(png|svg|jpg|html|csv)$/;

function read(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

function packageReadmes(): string[] {
  const packages = readdirSync(join(ROOT, "packages")).map((name) => `packages/${name}/README.md`);
  return [...packages, "test/README.md"].filter((file) => existsSync(join(ROOT, file)));
}

function lessonFiles(): string[] {
  const names = readdirSync(join(ROOT, "lessons")).filter((name) => name.endsWith(".ts"));
  return names.sort().map((name) => `lessons/${name}`);
}

/** The Markdown files of docs/ in the order of reading. Throws if one is not in the navigation. */
export function guidePages(): string[] {
  const pages = NAVIGATION.flatMap(([, files]) => files).filter((file) => file.startsWith("docs/"));
  const forgotten = readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .map((file) => `docs/${file.replaceAll("\\", "/")}`)
    .filter((file) => file.endsWith(".md") && !file.startsWith("docs/site/") && !pages.includes(file));
  if (forgotten.length > 0)
    throw new Error(`not in the navigation of scripts/docs/site.ts: ${forgotten.join(", ")}`);
  return pages;
}

const isLesson = (file: string): boolean => /^lessons\/[^/]+\.ts$/.test(file);

function markdownOf(file: string): string {
  if (isLesson(file)) return readLesson(file, read(file)).markdown;
  return read(file).replace(/^<!-- (\w+) -->$/gm, (comment, name: string) => GENERATED[name]?.() ?? comment);
}

/** Pages whose first heading says too little among others. */
const TITLES: Readonly<Record<string, string>> = { "docs/README.md": "Start here", "README.md": "Overview" };

/** A page's first heading, or the name it has in TITLES. */
function titleOf(file: string): string {
  if (TITLES[file] !== undefined) return TITLES[file];
  const title = isLesson(file) ? readLesson(file, read(file)).title : /^# (.+)$/m.exec(read(file))?.[1];
  if (title === undefined) throw new Error(`${file}: expected a first line "# Title"`);
  return title;
}

/** Where a file of the repository is in the site. */
function sitePath(file: string): string {
  if (file === "docs/README.md") return "index.html";
  if (file === "README.md") return "overview.html";
  if (file.startsWith("docs/api/")) return file.slice("docs/".length); // written by typedoc
  const readme = /^(?:packages\/)?([^/]+)\/README\.md$/.exec(file);
  if (readme) return `packages/${readme[1]}.html`;
  if (file.endsWith(".md"))
    return file
      .replace(/^docs\//, "")
      .toLowerCase()
      .replace(/\.md$/, ".html");
  if (isLesson(file)) return file.replace(/\.ts$/, ".html");
  if (COPIED.test(file)) return `files/${file}`;
  return isFolder(file) ? `source/${file}/index.html` : `source/${file}.html`;
}

function isFolder(file: string): boolean {
  return statSync(join(ROOT, file), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** The page that stands for a folder, if one does. */
function pageOfFolder(folder: string): string {
  if (folder === "lessons") return "docs/lessons.md";
  const readme = `${folder}/README.md`;
  return existsSync(join(ROOT, readme)) ? readme : folder;
}

/** The content of a page for a file or folder that is no page by itself. */
function contentOf(file: string, link: (to: string) => string): string {
  if (!isFolder(file)) return sourcePage(file, read(file));
  const files = readdirSync(join(ROOT, file), { withFileTypes: true }).filter((entry) => entry.isFile());
  const items = files.map(({ name }) => `<li><a href="${link(`${file}/${name}`)}">${name}</a></li>`);
  return `<h1 class="path">${file}</h1>\n<ul>\n${items.join("\n")}\n</ul>\n`;
}

/** Writes all pages into `folder`, without those of the API. */
export function buildSite(folder: string): void {
  const pages = NAVIGATION.flatMap(([, files]) => files);
  guidePages(); // that all are there
  const linked = (file: string): Linked => ({ path: sitePath(file), title: titleOf(file) });
  const sections = NAVIGATION.map(([title, files]): Section => ({ title, pages: files.map(linked) }));
  const order = pages.flatMap((file) => (file === "docs/lessons.md" ? [file, ...lessonFiles()] : [file]));
  const sources = new Set<string>();

  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  const linkTo = (from: string, file: string): string => {
    if (!order.includes(file) && existsSync(join(ROOT, file))) sources.add(file);
    return relativeTo(sitePath(from), sitePath(file));
  };
  for (const [i, file] of order.entries()) {
    const link = (target: string): string => {
      const to = targetOf(file, target);
      return to === null ? target : linkTo(file, to.file) + to.anchor;
    };
    const [previous, next] = [order[i - 1], order[i + 1]].map((one) =>
      one === undefined ? undefined : linked(one),
    );
    const content = renderMarkdown(markdownOf(file), link).html;
    write(sitePath(file), frame({ ...linked(file), content, previous, next }, sections));
  }
  for (const file of sources) {
    const path = sitePath(file);
    if (COPIED.test(file)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      copyFileSync(join(ROOT, file), join(folder, path));
    } else {
      const content = contentOf(file, (to) => linkTo(file, to)); // of a folder, adds to the sources
      write(path, frame({ path, title: basename(file), content }, sections));
    }
  }
  copyFileSync(join(import.meta.dirname, "style.css"), join(folder, "style.css"));
}

/** The file of the repository that a link leads to; null for the outside and for anchors of the same page. */
function targetOf(from: string, target: string): { file: string; anchor: string } | null {
  if (/^([a-z][a-z+.-]*:|#)/i.test(target)) return null;
  const [path = "", anchor] = target.split("#");
  const full = posix.normalize(posix.join(posix.dirname(from), path)).replace(/\/$/, "");
  const file = isFolder(full) ? pageOfFolder(full) : full;
  return { file, anchor: anchor === undefined ? "" : `#${anchor}` };
}
