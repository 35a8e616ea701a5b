/**
 * Tests the documents: their TypeScript type-checks, runs and prints what its comments say, their shell commands work, and
 * their links lead to existing files.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { typescriptProgram } from "../../test/support/programs.ts";
import { type Block, codeBlocks, expectedOutput, localLinks } from "../docs/blocks.ts";
import { withTables } from "../docs/methods.ts";
import { guidePages, ROOT as root } from "../docs/navigation.ts";

const folder = join(root, ".cache/docs", String(process.pid)); // so that simultaneous runs do not share a folder
const scratch = join(folder, "run"); // blocks write their files here
const TIMEOUT_MS = 180_000;

const documents = [
  "README.md",
  "CONTRIBUTING.md",
  "CHANGELOG.md",
  "test/README.md",
  ...readdirSync(join(root, "packages")).map((name) => `packages/${name}/README.md`),
  ...guidePages(), // in reading order: later pages use files that earlier ones have written
].map((file) => ({ file, text: readFileSync(join(root, file), "utf8") }));
const blocks = documents.flatMap(({ file, text }) => codeBlocks(file, text));
const typescript = blocks.filter(({ language }) => language === "ts");

const pathOf = (block: Block): string => join(folder, `${block.place.replaceAll(/[^\w]+/g, "-")}.ts`);

function run(command: string, args: readonly string[], cwd: string): string {
  const { NODE_OPTIONS: _inherited, ...env } = process.env;
  const result = spawnSync(command, args, { cwd, env, encoding: "utf8", timeout: TIMEOUT_MS });
  const output = `${result.stdout}${result.stderr}`;
  assert.equal(result.status, 0, `${result.error?.message ?? `exit code ${result.status}`}\n${output}`);
  return result.stdout;
}

/** Runs a program, and checks that it prints the expected lines in their order. */
function runTypescript(block: Block): void {
  const output = run(process.execPath, typescriptProgram(pathOf(block)), scratch);
  const lines = output.split("\n").map((line) => line.trim());
  let from = 0;
  for (const expected of expectedOutput(block.code)) {
    const at = lines.indexOf(expected, from);
    assert.ok(at >= from, `expected the line "${expected}" in the output:\n${output}`);
    from = at + 1;
  }
}

/** Runs shell commands: those of the guide in the scratch folder, all others in the root of the repository. */
function runShell({ place, code }: Block): void {
  run("bash", ["-euo", "pipefail", "-c", code], place.startsWith("docs/guide/") ? scratch : root);
}

after(() => rmSync(folder, { recursive: true, force: true }));

before(() => {
  mkdirSync(scratch, { recursive: true });
  for (const block of typescript) writeFileSync(pathOf(block), `${block.code}\nexport {};\n`);
});

test("every TypeScript block type-checks", () => {
  const config = {
    extends: "../../../tsconfig.base.json",
    compilerOptions: {
      composite: false,
      declaration: false,
      declarationMap: false,
      isolatedDeclarations: false,
      noEmit: true,
      noUnusedLocals: false,
      lib: ["ES2023", "DOM"],
      types: ["node"],
    },
    files: typescript.map(pathOf),
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", folder, "--pretty", "false"], {
    cwd: root,
    encoding: "utf8",
  });
  assert.ok(status === 0 || /error TS/.test(stdout), `tsc did not run: ${stdout}`);
  // Errors in the packages themselves are left to `npm run check`.
  assert.deepEqual(
    stdout.split("\n").filter((line) => line.startsWith(".cache/docs/") || line.startsWith("error ")),
    [],
  );
});

test("the tables of methods are made from the declarations", () => {
  for (const { file, text } of documents.filter(({ text }) => text.includes("<!-- methods:")))
    assert.equal(text, withTables(text), `${file}: run scripts/methods-page.ts --write`);
});

describe("blocks run, and TypeScript prints what it says", () => {
  for (const block of blocks.filter(({ runs }) => runs)) {
    if (block.language === "ts") test(block.place, () => runTypescript(block));
    if (block.language === "sh") test(block.place, () => runShell(block));
  }
});

test("links to files of the repository lead somewhere", () => {
  const broken = documents.flatMap(({ file, text }) =>
    localLinks(text)
      .filter((target) => !existsSync(join(root, dirname(file), target)))
      .map((target) => `${file}: ${target}`),
  );
  assert.deepEqual(broken, []);
});

test("every block names its language", () => {
  const unnamed = blocks.filter(({ language }) => !["ts", "sh", "text", "json", "yaml"].includes(language));
  assert.deepEqual(
    unnamed.map(({ place, language }) => `${place}: "${language}"`),
    [],
  );
});
