/** The layering rule of .oxlintrc.json: an import that points up, planted into a copy of the folders, is found. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, test } from "node:test";

const root = resolve(import.meta.dirname, "../..");
const OXLINT = join(root, "node_modules/oxlint/bin/oxlint");

const SAFETENSORS = "@tiedlora/safetensors";
const KERNELS = "@tiedlora/kernels";
const PLANNER = "@tiedlora/kernels/planner";
const CORE = "@tiedlora/core";
const NN = "@tiedlora/nn";
const CPU = "@tiedlora/backend-cpu";
const WEBGPU = "@tiedlora/backend-webgpu";
const MODELS = "@tiedlora/models";
const SUITE = "@tiedlora/test";
const NODE = "node:fs";

/** Per file: what it may import from outside its package, and what it may not. */
const LAYERS: readonly { file: string; may: readonly string[]; mayNot: readonly string[] }[] = [
  {
    file: "packages/safetensors/src/planted.ts",
    may: [],
    mayNot: [SAFETENSORS, KERNELS, CORE, MODELS, "tiedlora", SUITE, NODE, "fs", "fast-check"],
  },
  {
    file: "packages/safetensors/src/node.ts",
    may: [NODE],
    mayNot: [KERNELS, CORE, "tiedlora", "fast-check"],
  },
  {
    file: "packages/kernels/src/planted.ts",
    may: [SAFETENSORS],
    mayNot: [`${SAFETENSORS}/node`, CORE, CPU, MODELS, "tiedlora", SUITE, NODE, "fs", "fast-check"],
  },
  {
    file: "packages/core/src/planted.ts",
    may: [KERNELS, PLANNER, SAFETENSORS],
    mayNot: [
      `${SAFETENSORS}/node`,
      CORE,
      NN,
      CPU,
      WEBGPU,
      MODELS,
      "tiedlora",
      SUITE,
      NODE,
      "fs",
      "fast-check",
    ],
  },
  {
    file: "packages/nn/src/planted.ts",
    may: [CORE, `${CORE}/extend`],
    mayNot: [KERNELS, SAFETENSORS, `${CORE}/node`, NN, CPU, WEBGPU, MODELS, "tiedlora", SUITE, NODE, "fs"],
  },
  {
    file: "packages/core/src/io/node.ts",
    may: [`${SAFETENSORS}/node`],
    mayNot: [CORE, CPU, MODELS, "tiedlora", NODE, "fast-check"],
  },
  // Core's node.ts is the graph's Node, not a door to Node.js.
  { file: "packages/core/src/node.ts", may: [KERNELS], mayNot: [CPU, NODE] },
  {
    file: "packages/backend-cpu/src/planted.ts",
    may: [KERNELS, CORE],
    mayNot: [PLANNER, NN, WEBGPU, MODELS, "tiedlora", SUITE, NODE, "fast-check"],
  },
  { file: "packages/backend-cpu/src/node.ts", may: [KERNELS, CORE, NODE], mayNot: [MODELS, "tiedlora"] },
  {
    file: "packages/backend-webgpu/src/sub/planted.ts",
    may: [KERNELS, CORE],
    mayNot: [PLANNER, NN, CPU, MODELS, "tiedlora", SUITE, NODE, "webgpu"],
  },
  {
    file: "packages/models/src/planted.ts",
    may: [CORE, NN, "@huggingface/tokenizers"],
    mayNot: [CPU, WEBGPU, "tiedlora", "tiedlora/cli", SUITE, NODE],
  },
  { file: "packages/models/src/node/planted.ts", may: [CORE, NODE], mayNot: [CPU, "tiedlora", SUITE] },
  {
    file: "packages/tiedlora/src/planted.ts",
    may: [CORE, NN, CPU, WEBGPU, MODELS],
    mayNot: [SUITE, NODE, `${MODELS}/node`, `${WEBGPU}/node`],
  },
  { file: "packages/tiedlora/src/cli/planted.ts", may: [CORE, NODE, `${MODELS}/node`], mayNot: [SUITE] },
  { file: "test/src/planted.ts", may: [CORE, NN, "fast-check"], mayNot: [CPU, WEBGPU, MODELS, "tiedlora"] },
];

interface Report {
  number_of_files: number;
  diagnostics: { code: string; labels: { span: { line: number } }[] }[];
}

const folder = mkdtempSync(join(tmpdir(), "layers-"));
after(() => rmSync(folder, { recursive: true }));
copyFileSync(join(root, ".oxlintrc.json"), join(folder, ".oxlintrc.json"));

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
  const { stdout, stderr } = spawnSync(process.execPath, [OXLINT, "--format=json", path], {
    cwd: folder,
    encoding: "utf8",
  });
  rmSync(path);
  assert.match(stdout, /^\{/, `oxlint did not run: ${stdout}${stderr}`);
  const report = JSON.parse(stdout) as Report;
  assert.equal(report.number_of_files, 1);
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

for (const { file, may, mayNot } of LAYERS) {
  test(`${file} may import ${may.join(", ") || "nothing"}`, () => {
    assert.deepEqual(forbidden(file, [...may, ...mayNot]), mayNot);
  });
}
