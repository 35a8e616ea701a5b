/** Tests the rules of .oxlintrc.json on imports: they must find upward and circular imports planted in a copy of the folders. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, test } from "node:test";
import { type Layer, LAYERS, PRIVATE_ENTRIES } from "../layers.ts";

const root = resolve(import.meta.dirname, "../..");
const OXLINT = join(root, "node_modules/oxlint/bin/oxlint");

const OUTSIDE = ["fast-check", "yaml", "next", "node-fetch", "tinypool", "@huggingface/tokenizers"];
const NODE = ["node:fs", "@tiedlora/models/node", "tiedlora/internal/node"];

/** The specifiers outside its package that a file may import, and those that it may not. */
interface Planted {
  file: string;
  may: readonly string[];
  mayNot: readonly string[];
}

const entriesFor = (name: string, may: boolean): string[] =>
  Object.keys(PRIVATE_ENTRIES).filter((entry) => PRIVATE_ENTRIES[entry]!.includes(name) === may);

function planted({ name, folder, uses, thirdParty, node }: Layer): Planted[] {
  const others = LAYERS.map((layer) => layer.name).filter((one) => !uses.includes(one));
  const may = [...uses, ...entriesFor(name, true), ...(thirdParty ? OUTSIDE : [])];
  const mayNot = [...others, ...entriesFor(name, false), ...(thirdParty ? [] : [...OUTSIDE, "fs"])];
  const browsers = { file: `${folder}/src/sub/planted.ts`, may, mayNot: [...mayNot, ...NODE] };
  const inNode = node.map((glob) => ({
    file: `${folder}/${glob.replace("**", "planted.ts")}`,
    may: [...may, "node:fs"],
    mayNot,
  }));
  return node.includes("src/**") ? inNode : [browsers, ...inNode];
}

interface Report {
  number_of_files: number;
  diagnostics: { code: string; labels: { span: { line: number } }[] }[];
}

const folder = mkdtempSync(join(tmpdir(), "layers-"));
after(() => rmSync(folder, { recursive: true }));
copyFileSync(join(root, ".oxlintrc.json"), join(folder, ".oxlintrc.json"));

function lint(paths: readonly string[]): Report {
  const { stdout, stderr } = spawnSync(process.execPath, [OXLINT, "--format=json", ...paths], {
    cwd: folder,
    encoding: "utf8",
  });
  assert.match(stdout, /^\{/, `oxlint did not run: ${stdout}${stderr}`);
  const report = JSON.parse(stdout) as Report;
  assert.equal(report.number_of_files, paths.length);
  return report;
}

/** The specifiers that the rule forbids in `file`, each planted in every form that an import can have. */
function forbidden(file: string, specifiers: readonly string[]): string[] {
  const path = join(folder, file);
  mkdirSync(dirname(path), { recursive: true });
  const forms = (specifier: string, i: number): string[] => [
    `import { a${i} } from "${specifier}"; console.log(a${i});`,
    `import type { B${i} } from "${specifier}"; export type C${i} = B${i};`,
    `export { d${i} } from "${specifier}";`,
    `export * from "${specifier}";`,
    `import "${specifier}";`,
  ];
  const lines = specifiers.flatMap((specifier, i) =>
    forms(specifier, i).map((text) => ({ specifier, text })),
  );
  writeFileSync(path, lines.map(({ text }) => `${text}\n`).join(""));
  const report = lint([path]);
  rmSync(path);
  const hits = report.diagnostics
    .filter(({ code }) => code.includes("no-restricted-imports"))
    .map(({ labels }) => lines[(labels[0]?.span.line ?? 0) - 1]);
  return specifiers.filter((specifier) => {
    const count = new Set(hits.filter((hit) => hit?.specifier === specifier)).size;
    assert.ok(
      count === 0 || count === 5,
      `${file}: ${count} of 5 forms of importing "${specifier}" are found`,
    );
    return count > 0;
  });
}

for (const { file, may, mayNot } of LAYERS.flatMap(planted)) {
  test(`${file} may import ${may.join(", ") || "nothing"}`, () => {
    assert.deepEqual(forbidden(file, [...may, ...mayNot]), mayNot);
  });
}

/** In how many files the rule on cycles finds a cycle, if file i imports file i + 1 and the last file imports `last`. */
function inCircle(forms: readonly ((specifier: string) => string)[], last: string): number {
  const paths = forms.map((_, i) => join(folder, `packages/core/src/planted${i}.ts`));
  mkdirSync(dirname(paths[0]!), { recursive: true });
  writeFileSync(join(folder, "packages/core/src/outside.ts"), "export interface Planted { x: number }\n");
  forms.forEach((form, i) => {
    const next = i + 1 < forms.length ? `./planted${i + 1}.ts` : last;
    writeFileSync(paths[i]!, `${form(next)}\nexport interface Planted { x: number }\n`);
  });
  const { diagnostics } = lint(paths);
  for (const path of paths) rmSync(path);
  return diagnostics.filter(({ code }) => code.includes("no-cycle")).length;
}

const importsType = (from: string): string =>
  `import type { Planted as Next } from "${from}"; export type { Next };`;
const importsValue = (from: string): string => `import * as next from "${from}"; console.log(next);`;

test("a circle of files is refused, also one of types alone", () => {
  for (const forms of [
    [importsType, importsType],
    [importsValue, importsType, importsType],
    [importsValue, importsValue],
  ]) {
    assert.equal(inCircle(forms, "./planted0.ts"), forms.length);
    assert.equal(inCircle(forms, "./outside.ts"), 0);
  }
});
