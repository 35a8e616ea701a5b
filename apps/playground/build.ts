/**
 * Builds the page: static files, by default in dist/ and with the project's own base model.
 *
 *   npm run playground:build [-- --out DIR] [--base DIR] [--no-with-base]
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { build, type BuildOptions } from "esbuild";

const here = import.meta.dirname;
const { values } = parseArgs({
  allowNegative: true,
  options: {
    out: { type: "string", default: join(here, "dist") },
    base: { type: "string", default: join(here, "../../packages/experiments/assets/base") },
    "with-base": { type: "boolean", default: true },
  },
});
const out = resolve(values.out);

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const COMMON = {
  bundle: true,
  format: "esm",
  target: "es2023",
  conditions: ["@tiedlora/source"],
  // esbuild does not see that this package has another file for browsers: it names it in "browser" and not in "exports".
  alias: { "@huggingface/hub": browserFile("@huggingface/hub", "dist/browser/index.mjs") },
  external: ["webgpu", "node:*"],
  minify: true,
  sourcemap: true,
  logLevel: "warning",
} as const satisfies BuildOptions;

await build({
  ...COMMON,
  entryPoints: {
    page: join(here, "src/page/main.ts"),
    style: join(here, "page.css"),
    worker: join(here, "src/worker/main.ts"),
    lessons: join(here, "src/lessons/main.ts"),
  },
  outdir: out,
});
await buildLessons(join(here, "../../lessons"));
for (const file of ["index.html", "lessons.html", "icon.svg"]) cpSync(join(here, file), join(out, file));
if (values["with-base"]) {
  if (!existsSync(values.base))
    throw new Error(`there is no base model in ${values.base}; train it: npm run pretrain`);
  cpSync(values.base, join(out, "base"), { recursive: true });
}

/** The path of a file in an installed package. */
function browserFile(name: string, file: string): string {
  const modules = createRequire(import.meta.url).resolve.paths(name)!;
  const found = modules.map((folder) => join(folder, name, file)).find((path) => existsSync(path));
  if (found === undefined) throw new Error(`${name} is not installed, or has no ${file}: npm install`);
  return found;
}

/** Each lesson as a worker of its own, and the text and code of all in one file. */
async function buildLessons(folder: string): Promise<void> {
  const files = readdirSync(folder).filter((file) => file.endsWith(".ts"));
  const lessons = files.sort().map((file) => lessonOf(file, readFileSync(join(folder, file), "utf8")));
  for (const [i, { id }] of lessons.entries()) {
    const from = (path: string): string => JSON.stringify(`./${relative(here, path)}`);
    const contents =
      `import { report } from ${from(join(here, "src/lessons/report.ts"))};\n` +
      `await report(() => import(${from(join(folder, files[i]!))}));\n`;
    await build({
      ...COMMON,
      stdin: { contents, resolveDir: here, loader: "ts" },
      outfile: join(out, "lessons", `${id}.js`),
    });
  }
  writeFileSync(join(out, "lessons/index.json"), JSON.stringify(lessons));
}

/** The comment that opens a lesson is its text: a title, the command, paragraphs. */
function lessonOf(
  file: string,
  source: string,
): { id: string; title: string; paragraphs: string[]; code: string } {
  const end = source.indexOf("*/");
  const [title = file, ...paragraphs] = source
    .slice(source.indexOf("/**") + 3, end)
    .split("\n")
    .map((line) => line.replace(/^ \* ?/, ""))
    .map((line) => line.replace(/\s*npx tsx .*$/, "")) // how to run it in Node
    .join("\n")
    .trim()
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replaceAll(/\s*\n\s*/g, " "));
  return {
    id: file.replace(/\.ts$/, ""),
    title: title.replace(/\.$/, ""),
    paragraphs,
    code: source.slice(end + 3).trim(),
  };
}

console.error(`the page is in ${out}`);
