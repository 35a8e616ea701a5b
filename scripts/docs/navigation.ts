/** The files of the repository that are pages of the site, their order, and the path of each file in the site. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { readLesson } from "./lesson.ts";

export const ROOT: string = resolve(import.meta.dirname, "../..");

/** The navigation: headings, and the files below each in reading order. */
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
      "docs/quantization.md",
      "docs/guide/your-method.md",
      "docs/guide/serving.md",
      "docs/guide/your-backend.md",
      "docs/many-machines.md",
      "docs/guide/troubleshooting.md",
    ],
  ],
  ["How it works", ["docs/read-the-core.md", "docs/lessons.md", ...lessonFiles()]],
  ["Reference", ["docs/methods.md", "docs/commands.md", "docs/api.md", ...packageReadmes()]],
  [
    "Measured",
    [
      "docs/benchmarks.md",
      "docs/scale.md",
      "docs/paper-grid.md",
      "docs/tied-gates.md",
      "docs/difficulty.md",
      "docs/real-text.md",
      "docs/learning-rates.md",
    ],
  ],
  ["Project", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]],
];

/** Every file of the repository that is a page of the guide. */
export const PAGES: readonly string[] = NAVIGATION.flatMap(([, files]) => files);

/** The sidebar titles of pages whose first heading would say too little there. */
const TITLES: Readonly<Record<string, string>> = {
  "docs/README.md": "Start here",
  "README.md": "Overview",
};

/** Matches pictures, reports and tables, which are copied unchanged. */
export const COPIED: RegExp = /\.(png|svg|jpg|html|csv)$/;

export function read(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

function packageReadmes(): string[] {
  const packages = readdirSync(join(ROOT, "packages")).map((name) => `packages/${name}/README.md`);
  return [...packages, "test/README.md"].filter((file) => existsSync(join(ROOT, file)));
}

export function lessonFiles(): string[] {
  const names = readdirSync(join(ROOT, "lessons")).filter((name) => name.endsWith(".ts"));
  return names.sort().map((name) => `lessons/${name}`);
}

export const isLesson = (file: string): boolean => /^lessons\/[^/]+\.ts$/.test(file);

/** The Markdown files of docs/ in reading order. Throws if one is not in the navigation. */
export function guidePages(): string[] {
  const pages = PAGES.filter((file) => file.startsWith("docs/"));
  const forgotten = readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .map((file) => `docs/${file.replaceAll("\\", "/")}`)
    .filter((file) => file.endsWith(".md") && !file.startsWith("docs/site/") && !pages.includes(file));
  if (forgotten.length > 0)
    throw new Error(`not in the navigation of scripts/docs/navigation.ts: ${forgotten.join(", ")}`);
  return pages;
}

/** The title of a page: its name in TITLES, or else its first heading. */
export function titleOf(file: string): string {
  if (TITLES[file] !== undefined) return TITLES[file];
  const title = isLesson(file) ? readLesson(file, read(file)).title : /^# (.+)$/m.exec(read(file))?.[1];
  if (title === undefined) throw new Error(`${file}: expected a first line "# Title"`);
  return title;
}

export function isFolder(file: string): boolean {
  return statSync(join(ROOT, file), { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** The path in the site of a file or folder of the repository, such as "guide/install.md" or "source/scripts/docs.ts.md". */
export function sitePath(file: string): string {
  if (file === "docs/README.md") return "index.md";
  if (file === "README.md") return "overview.md";
  if (file === "docs/api.md") return "api/index.md"; // the other API pages are written by typedoc
  const readme = /^(?:packages\/)?([^/]+)\/README\.md$/.exec(file);
  if (readme) return `packages/${readme[1]}.md`;
  if (file.endsWith(".md")) return file.replace(/^docs\//, "").toLowerCase();
  if (isLesson(file)) return file.replace(/\.ts$/, ".md");
  if (COPIED.test(file)) return `files/${file}`;
  return isFolder(file) ? `source/${file}/index.md` : `source/${file}.md`;
}

export interface SidebarItem {
  readonly text: string;
  readonly link?: string;
  readonly collapsed?: boolean;
  readonly items?: readonly SidebarItem[];
}

/** The sidebar of all pages except those of the API. */
export function guideSidebar(): SidebarItem[] {
  const item = (file: string): SidebarItem => ({ text: titleOf(file), link: `/${sitePath(file)}` });
  return NAVIGATION.map(([text, files]) => ({ text, items: files.map(item) }));
}
