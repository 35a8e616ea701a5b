/** Tests the pages of the documentation: their links work, and what they say about commands and sources is right. */
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { slug } from "../../docs/.vitepress/slug.ts";
import { codeBlocks, localLinks } from "../docs/blocks.ts";
import { commandLine } from "../docs/commands.ts";
import { declarations } from "../docs/declarations.ts";
import { readLesson } from "../docs/lesson.ts";
import { brokenLinks } from "../docs/links.ts";
import { guidePages, ROOT } from "../docs/navigation.ts";
import { withLinks, writePages } from "../docs/pages.ts";

const temporary = mkdtempSync(join(tmpdir(), "tiedlora-docs-"));
const site = join(temporary, "site");
after(() => rmSync(temporary, { recursive: true, force: true }));

const read = (file: string): string => readFileSync(join(ROOT, file), "utf8");
const filesBelow = (folder: string): string[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => `${folder}/${file.replaceAll("\\", "/")}`);
const sourcesOf = (folder: string): string => filesBelow(folder).map(read).join("\n");

before(() => writePages(site, { pages: new Map(), sources: [] }));

test("every link leads to a page or a copied file of the site, and no page is forgotten", () => {
  const pages = readdirSync(site, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".md"),
  );
  assert.ok(pages.length > 30);
  const broken = pages.flatMap((page) =>
    localLinks(readFileSync(join(site, page), "utf8"))
      .filter(
        (to) => !to.startsWith("/") || ![site, join(site, "public")].some((at) => existsSync(join(at, to))),
      )
      .map((to) => `${page}: ${to}`),
  );
  assert.deepEqual(broken, []);
});

test("links in text are rewritten, those in code are not", () => {
  const text = "[a](b.md) and ![c](d.png)\n\n```md\n[a](b.md)\n```\n\n[e](f.md)\n";
  const expected = "[a](B.MD) and ![c](D.PNG)\n\n```md\n[a](b.md)\n```\n\n[e](F.MD)\n";
  assert.equal(withLinks(text, (to) => `(${to.toUpperCase()})`), expected); // prettier-ignore
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

test("links of a site below a path begin with that path", () => {
  const folder = join(temporary, "below");
  mkdirSync(folder);
  const links = ["/docs/a.html", "/docs/", "/docs/#own", "/docs/b.html", "/a.html", "/"];
  const anchors = links.map((target) => `<a href="${target}">x</a>`).join("");
  writeFileSync(join(folder, "a.html"), anchors);
  writeFileSync(join(folder, "index.html"), `<h1 id="own">A</h1>`);
  assert.deepEqual(brokenLinks(folder, "/docs/"), ["a.html: /docs/b.html", "a.html: /a.html", "a.html: /"]);
});

test("the reference has every command with every flag", () => {
  const sections = readFileSync(join(site, "commands.md"), "utf8").split(/^## /m);
  for (const command of commandLine().program.commands) {
    const section = sections.find((one) => one.startsWith(`tiedlora ${command.name()}\n`));
    assert.ok(section, command.name());
    for (const { flags } of command.options)
      assert.ok(section.includes(`\`${flags.replaceAll("|", "\\|")}\``), `${command.name()} ${flags}`);
  }
});

interface Written {
  readonly place: string;
  /** A command with its arguments. */
  readonly words: readonly string[];
}

/** The commands of all shell blocks, including blocks that tests do not run. */
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
  const [, list = ""] = /READING = \[([^\]]*)\]/.exec(read("scripts/check-budget.ts")) ?? [];
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
  const own = ["The loss does not fall", "Node does not end", "Results differ in the last digits"]; // not messages
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
