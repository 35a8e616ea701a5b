/**
 * The table of what each package may import. The linter's rules are generated from it: `npm run check` fails if .oxlintrc.json
 * has other rules, and scripts/test/layers.test.ts plants imports to prove that the rules work.
 *
 *   npx tsx scripts/layers.ts --write     puts the rules into .oxlintrc.json
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** A package, and what its sources may import from outside it. */
export interface Layer {
  readonly name: string;
  readonly folder: string;
  /** Packages of this repository. */
  readonly uses: readonly string[];
  /** Whether it may have third-party dependencies. */
  readonly thirdParty: boolean;
  /** Globs, relative to the folder, of the files that may use Node. All other files must also run in browsers. */
  readonly node: readonly string[];
}

const NODE_ENTRY = ["src/node.ts", "src/node/**"];
const TENSORS = ["@tiedlora/core", "@tiedlora/nn"];
const BACKENDS = ["@tiedlora/backend-cpu", "@tiedlora/backend-webgpu"];
const EVERYTHING_BELOW_EXPERIMENTS = [...TENSORS, ...BACKENDS, "@tiedlora/models", "tiedlora"];

/** The packages; each uses only packages that come before it in this list. */
export const LAYERS: readonly Layer[] = [
  layer("@tiedlora/safetensors", []),
  layer("@tiedlora/kernels", ["@tiedlora/safetensors"], { node: [] }),
  layer("@tiedlora/core", ["@tiedlora/safetensors", "@tiedlora/kernels"]),
  layer("@tiedlora/nn", ["@tiedlora/core"], { node: [] }),
  ...BACKENDS.map((name) => layer(name, ["@tiedlora/kernels", "@tiedlora/core"])),
  layer("@tiedlora/models", TENSORS, { thirdParty: true }),
  layer("tiedlora", TENSORS),
  layer("@tiedlora/experiments", EVERYTHING_BELOW_EXPERIMENTS, { thirdParty: true }),
  layer("@tiedlora/cli", [...EVERYTHING_BELOW_EXPERIMENTS, "@tiedlora/experiments"], {
    thirdParty: true,
    node: ["src/**"],
  }),
  layer("@tiedlora/test", TENSORS, { folder: "test", thirdParty: true, node: [] }),
];

/** Entry points that only some packages may import, with these packages. */
export const PRIVATE_ENTRIES: Readonly<Record<string, readonly string[]>> = {
  "@tiedlora/core/extend": ["@tiedlora/nn", "@tiedlora/models"],
  "tiedlora/internal": ["@tiedlora/experiments", "@tiedlora/cli"],
};

function layer(name: string, uses: readonly string[], options: Partial<Layer> = {}): Layer {
  const folder = `packages/${name.replace("@tiedlora/", "")}`;
  return { name, folder, uses, thirdParty: false, node: NODE_ENTRY, ...options };
}

interface Pattern {
  readonly regex: string;
  readonly message: string;
}

const oneOf = (names: readonly string[]): string => `^(${names.join("|")})($|/)`;
const NODE_IMPORTS = "^(node:.*|(@tiedlora/[a-z-]+|tiedlora)(/internal)?/node)$";
/** Matches all specifiers except relative ones, those of this repository's packages, and Node's own. Look-ahead is unavailable. */
const THIRD_PARTY = "^([^.@nt]|@[^t]|n[^o]|no[^d]|nod[^e]|node[^:]|t[^i]|ti[^e])";

function patterns(of: Layer, inNode: boolean): Pattern[] {
  const names = LAYERS.map(({ name }) => name);
  const refused = names.filter((name) => !of.uses.includes(name));
  const entries = Object.keys(PRIVATE_ENTRIES).filter((entry) => !PRIVATE_ENTRIES[entry]!.includes(of.name));
  const may = of.uses.length === 0 ? "no other package" : of.uses.join(", ");
  return [
    { regex: oneOf(refused), message: `${of.name} may import ${may}: see scripts/layers.ts` },
    {
      regex: oneOf(entries),
      message: `only ${entries.map((one) => PRIVATE_ENTRIES[one]!.join(", ")).join(" and ")} may import this`,
    },
    ...(of.thirdParty ? [] : [{ regex: THIRD_PARTY, message: `${of.name} has no third-party dependencies` }]),
    ...(inNode
      ? []
      : [
          {
            regex: NODE_IMPORTS,
            message: "Node's modules are for node.ts and node/ alone: the rest runs in browsers",
          },
        ]),
  ];
}

function override(of: Layer, globs: readonly string[], inNode: boolean): object {
  return {
    files: globs.map((glob) => `${of.folder}/${glob}`),
    rules: {
      "no-restricted-imports": ["error", { patterns: patterns(of, inNode) }],
      "no-restricted-globals": inNode
        ? "off"
        : ["error", "Buffer", "process", "require", "__dirname", "__filename"],
    },
  };
}

/** The linter's overrides. If two match a file, the later one applies. */
export const overrides = (): object[] =>
  LAYERS.flatMap((of) => [
    override(of, ["src/**"], false),
    ...(of.node.length > 0 ? [override(of, of.node, true)] : []),
  ]);

if (process.argv[1] === import.meta.filename) {
  const file = join(resolve(import.meta.dirname, ".."), ".oxlintrc.json");
  const settings = JSON.parse(readFileSync(file, "utf8")) as { overrides: object[] };
  const generated = JSON.stringify(overrides());
  if (process.argv.includes("--write")) {
    writeFileSync(file, `${JSON.stringify({ ...settings, overrides: overrides() }, null, 2)}\n`);
  } else if (JSON.stringify(settings.overrides) !== generated) {
    console.error("layers: .oxlintrc.json has other rules than the table: npx tsx scripts/layers.ts --write");
    process.exitCode = 1;
  }
}
