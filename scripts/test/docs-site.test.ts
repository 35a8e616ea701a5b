/** The site of the documentation: its links lead somewhere, and what it says about commands and sources is so. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { codeBlocks } from "../docs/blocks.ts";
import { commandLine } from "../docs/commands.ts";
import { readLesson } from "../docs/lesson.ts";
import { brokenLinks } from "../docs/links.ts";
import { escapeHtml, slug } from "../docs/markdown.ts";
import { buildSite, guidePages, ROOT } from "../docs/site.ts";
import { declarations } from "../docs/source.ts";

const temporary = mkdtempSync(join(tmpdir(), "tiedlora-docs-"));
const site = join(temporary, "site");
after(() => rmSync(temporary, { recursive: true, force: true }));

const read = (file: string): string => readFileSync(join(ROOT, file), "utf8");
const filesBelow = (folder: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => `${folder}/${file.replaceAll("\\", "/")}`);
const sourcesOf = (folder: string): string => filesBelow(folder).map(read).join("\n");

before(() => buildSite(site));

test("every link leads to a page, and to an anchor in it", () => {
  assert.deepEqual(brokenLinks(site, (path) => path.startsWith("api/")), []); // prettier-ignore
});

test("a link to a missing page, folder, anchor or picture is found", () => {
  const folder = join(temporary, "planted");
  mkdirSync(join(folder, "sub"), { recursive: true });
  const links = ["sub/b.html", "sub/b.html#here", "#own", "https://example.org/", "c.html", "sub", "sub/b.html#there", "#no"]; // prettier-ignore
  const anchors = links.map((target) => `<a href="${target}">x</a>`).join("");
  writeFileSync(join(folder, "a.html"), `<h1 id="own">A</h1>${anchors}<img src="none.png">`);
  writeFileSync(join(folder, "sub/b.html"), `<h1 id="here">B</h1><a href="../a.html#own">x</a>`);
  const expected = ["c.html", "sub", "sub/b.html#there", "#no", "none.png"];
  assert.deepEqual(
    brokenLinks(folder),
    expected.map((target) => `a.html: ${target}`),
  );
});

test("every page has a title, one first heading, the width of a phone, and nothing from elsewhere", () => {
  const pages = readdirSync(site, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".html")); // prettier-ignore
  assert.ok(pages.length > 30);
  for (const page of pages) {
    const html = readFileSync(join(site, page), "utf8");
    assert.equal(html.match(/<h1[ >]/g)?.length, 1, page);
    // What is copied as it is, a sweep's report, has a title of its own.
    assert.match(
      html,
      page.startsWith("files") ? /<title>.+<\/title>/ : /<title>.+ · tiedlora<\/title>/,
      page,
    );
    assert.match(html, /name="viewport" content="width=device-width/, page);
    assert.doesNotMatch(html, /<(script|link|img)[^>]*(src|href)="https?:/, page);
  }
});

test("the reference has every command with every flag", () => {
  const page = readFileSync(join(site, "commands.html"), "utf8");
  for (const command of commandLine().program.commands) {
    assert.ok(page.includes(`id="tiedlora-${command.name()}"`), command.name());
    const from = page.indexOf(`id="tiedlora-${command.name()}"`);
    const end = page.indexOf("<h2 ", from);
    const section = page.slice(from, end === -1 ? undefined : end);
    for (const { flags } of command.options)
      assert.ok(section.includes(escapeHtml(flags)), `${command.name()} ${flags}`);
  }
});

interface Written {
  readonly place: string;
  /** A command with its arguments. */
  readonly words: readonly string[];
}

/** The commands of all shell blocks, those too that do not run here. */
function writtenCommands(): Written[] {
  const packages = readdirSync(join(ROOT, "packages")).map((name) => `packages/${name}/README.md`);
  return ["README.md", "CONTRIBUTING.md", ...packages, ...guidePages()]
    .flatMap((file) => codeBlocks(file, read(file)))
    .filter(({ language }) => language === "sh")
    .flatMap(({ place, code }) =>
      code
        .replaceAll(/\\\n/g, " ")
        .split("\n")
        .map((line) => ({
          place,
          words: line
            .replace(/\s#.*$/, "")
            .trim()
            .split(/\s+/),
        })),
    );
}

test("every tiedlora command that is written anywhere exists, and takes its flags", () => {
  const { program } = commandLine();
  let seen = 0;
  for (const { place, words } of writtenCommands()) {
    if (words[0] !== "npx" || words[1] !== "tiedlora") continue;
    const [name = "", ...rest] = words.slice(2);
    if (name.startsWith("--")) continue;
    const command = program.commands.find((one) => one.name() === name);
    assert.ok(command, `${place}: tiedlora ${name}`);
    const known = ["--help", ...command.options.map(({ long }) => long)];
    for (const flag of rest.filter((word) => word.startsWith("--")))
      assert.ok(known.includes(flag), `${place}: tiedlora ${name} ${flag}`);
    seen++;
  }
  assert.ok(seen > 15);
});

test("every npm script that is written anywhere exists", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  const named = writtenCommands().filter(({ words }) => words[0] === "npm" && words[1] === "run");
  assert.ok(named.length > 5);
  for (const { place, words } of named)
    assert.ok(Object.hasOwn(scripts, words[2] ?? ""), `${place}: npm run ${words[2]}`);
});

test("the reading of the core goes through the marked files in order, and names what is there", () => {
  const text = read("docs/read-the-core.md");
  const [, list = ""] = /READING = \[(.*)\]/.exec(read("scripts/check-budget.ts")) ?? [];
  const marked = [...list.matchAll(/"([^"]+)"/g)].map(([, file]) => file);
  const headings = [...text.matchAll(/^## \d+\. \[([^\]]+)\]/gm)].map(([, file]) => file);
  assert.ok(marked.length > 0);
  assert.deepEqual(headings, marked);
  const sources = sourcesOf("packages/core/src") + sourcesOf("packages/kernels/src");
  const prose = text.replace(/^```[^]*?^```/gm, "");
  const names = [...prose.matchAll(/`([A-Za-z]\w*)(?:\.\w+)?`/g)].map(([, name = ""]) => name);
  assert.ok(names.length > 20);
  for (const name of names.filter((one) => one !== "jit"))
    assert.match(sources, new RegExp(`\\b${name}\\b`), name);
});

test("the messages in the troubleshooting are those of the sources", () => {
  const sources = sourcesOf("packages").replaceAll(/["'`] \+\s+["'`]/g, "");
  const own = ["The loss does not fall", "Node does not end", "Results differ in the last digits"]; // no messages
  const headings = [...read("docs/guide/troubleshooting.md").matchAll(/^### (.+)$/gm)].map(([, one]) => one!);
  assert.ok(headings.length > own.length);
  for (const heading of headings.filter((one) => !own.includes(one)))
    assert.ok(sources.includes(heading), heading);
});

test("a lesson's page has all of its code, and its text as text", () => {
  for (const name of readdirSync(join(ROOT, "lessons")).filter((file) => file.endsWith(".ts"))) {
    const code = read(`lessons/${name}`);
    const { title, markdown } = readLesson(`lessons/${name}`, code);
    assert.match(title, /^Lesson \d\. \S/);
    const shown = codeBlocks(name, markdown).map((block) => block.code).join("\n"); // prettier-ignore
    const body = code.slice(code.indexOf("*/") + 2);
    for (const line of body.split("\n").filter((one) => !/^\s*(\/\/.*)?$/.test(one)))
      assert.ok(shown.includes(line.trim()), `${name}: ${line}`);
    assert.doesNotMatch(shown, /^\/\/ ---/m);
  }
});

test("declarations: top level and members, from their comment on", () => {
  const code = "/** Adds. */\nexport function add(): void {}\nconst [a, b] = [1, 2], c = 3;\n\nclass Box {\n  // --- x\n  /** y */\n  get size(): number { return 1; }\n}\ninterface I { k: 1 }\n"; // prettier-ignore
  const found = Object.fromEntries(declarations("a.ts", code));
  assert.deepEqual(found, { add: 0, "[a, b]": 2, c: 2, Box: 4, "Box.size": 6, I: 9, "I.k": 9 });
});

test("anchors are GitHub's", () => {
  assert.equal(slug("Add an op"), "add-an-op");
  assert.equal(slug("1. node.ts: the graph"), "1-nodets-the-graph");
  assert.equal(slug("B A, `u` & v"), "b-a-u--v");
});
