/** The participants: what must be installed for each, and the command that starts it. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { buildSync } from "esbuild";
import type { Work } from "../problems.ts";
import type { Command } from "./child.ts";
import { writeProblem } from "./problem-file.ts";
import type { Task } from "./serve.ts";

export interface Participant {
  /** The printed name, such as "jax-js 0.1.25, wasm, 2 threads". */
  readonly label: string;
  readonly kind: "ours" | "javascript" | "pytorch";
  /** `folder`: that of our cache across processes; the peers have none. */
  command(work: Work, backend: Task["backend"], folder?: string): Command;
}

const here = import.meta.dirname;
const cache = join(here, ".cache");
const threads = availableParallelism();

/** Installs the JavaScript peers into bench/peers/node_modules, and bundles the programs for plain Node. */
export function prepareJavaScript(): void {
  installOnce(here, "@jax-js/jax", 300);
  buildSync({
    entryPoints: ["ours.ts", "jax.mjs", "tfjs.mjs"].map((file) => join(here, file)),
    outdir: cache,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    packages: "external",
    platform: "node",
    format: "esm",
    logLevel: "error",
  });
}

/** Installs what `folder` locks, of about so many megabytes, unless `name` is there. */
export function installOnce(folder: string, name: string, megabytes: number): void {
  const modules = join(folder, "node_modules");
  if (existsSync(join(modules, name))) return;
  console.error(`installing ${name} and others into ${modules} (about ${megabytes} MB) ...`);
  npm(["ci", "--ignore-scripts", "--prefix", folder]);
}

function npm(args: readonly string[]): void {
  execFileSync("npm", [...args, "--no-audit", "--no-fund"], {
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
  });
}

/** The Node program of a major version, which npm installs if necessary; by default this one. Throws if `major` is not a number. */
export function nodeProgram(major: string | undefined): { program: string; version: string } {
  if (major === undefined) return { program: process.execPath, version: process.versions.node };
  if (!/^\d+$/.test(major)) throw new Error(`--node ${major}: expected a major version, like 24`);
  const folder = join(cache, `node-${major}`);
  const name = `node-${process.platform === "win32" ? "win" : process.platform}-${process.arch}`;
  const program = join(folder, "node_modules", name, "bin/node");
  if (!existsSync(program)) {
    console.error(`installing Node ${major} into ${folder} ...`);
    mkdirSync(folder, { recursive: true });
    npm(["install", "--prefix", folder, "--no-save", "--no-package-lock", `${name}@${major}`]);
  }
  return { program, version: execFileSync(program, ["--version"], { encoding: "utf8" }).trim().slice(1) };
}

/** V8's option that joins two 128-bit SIMD operations into a 256-bit one. All JavaScript processes on Node 24 or later get it. */
const REVECTORIZE = "--experimental-wasm-revectorize";

function javaScript(
  file: string,
  node: { program: string; version: string },
  mode?: string,
): Participant["command"] {
  const flags = Number.parseInt(node.version) >= 24 ? [REVECTORIZE] : [];
  return (work, backend, folder) => {
    const task: Task = { work, backend, ...(mode !== undefined && { mode }), ...(folder !== undefined && { cache: folder }) }; // prettier-ignore
    return { program: node.program, args: [...flags, join(cache, file), JSON.stringify(task)] };
  };
}

const { dependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8")) as {
  dependencies: Record<string, string>;
};

export function javaScriptParticipants(
  backend: Task["backend"],
  node: { program: string; version: string },
): Participant[] {
  const jax = `jax-js ${dependencies["@jax-js/jax"]}`;
  const [on, tfOn] = backend === "webgpu" ? ["WebGPU", "WebGPU"] : [`wasm, ${threads} threads`, "wasm"];
  return [
    { label: "tiedlora", kind: "ours", command: javaScript("ours.mjs", node) },
    { label: `${jax}, ${on}`, kind: "javascript", command: javaScript("jax.mjs", node, "jit") },
    {
      label: `${jax}, ${on}, without jit`,
      kind: "javascript",
      command: javaScript("jax.mjs", node, "eager"),
    },
    {
      label: `tfjs ${dependencies["@tensorflow/tfjs"]}, ${tfOn}`,
      kind: "javascript",
      command: javaScript("tfjs.mjs", node),
    },
  ];
}

/** Debian's Python, since its package python3-torch works with no other. */
export const PYTHON = "/usr/bin/python3";

/** The folder of OpenBLAS for PyTorch; undefined if it is not installed. */
export function pythonLibraries(): string | undefined {
  if (!existsSync("/usr/lib")) return undefined;
  const folders = readdirSync("/usr/lib").map((name) => join("/usr/lib", name, "openblas-openmp"));
  return folders.find((folder) => existsSync(folder));
}

/** PyTorch, or the reason why it takes no part. With Debian's reference BLAS it is forty times slower than with OpenBLAS. */
export function pytorch(): Participant | string {
  const asked = spawnSync(PYTHON, ["-c", "import torch; print(torch.__version__)"], { encoding: "utf8" });
  if (asked.status !== 0) return "PyTorch takes no part: apt-get install python3-torch libopenblas0-openmp";
  const libraries = pythonLibraries();
  if (libraries === undefined)
    return "PyTorch takes no part: with the reference BLAS it is no measure (apt-get install libopenblas0-openmp)";
  const scratch = mkdtempSync(join(tmpdir(), "peers-"));
  process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
  return {
    label: `PyTorch ${asked.stdout.trim()}, ${threads} threads`,
    kind: "pytorch",
    command: (work) => {
      const description = writeProblem(
        work,
        join(scratch, `${JSON.stringify(work).replaceAll(/\W+/g, "-")}.bin`),
      );
      return {
        program: PYTHON,
        args: [join(here, "torch_peer.py"), JSON.stringify({ ...description, threads })],
        env: { LD_LIBRARY_PATH: libraries, OMP_NUM_THREADS: String(threads) },
      };
    },
  };
}
