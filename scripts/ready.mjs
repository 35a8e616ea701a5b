/**
 * Makes the repository ready to run a script, on a fresh clone too: plain Node, no dependencies. Installs the packages
 * when node_modules is missing or older than the lock, and with --build compiles what has changed since the last build.
 *
 *   node scripts/ready.mjs [--build]
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const MINIMUM_NODE = [20, 19];

/** The modification time in milliseconds; 0 where there is no such file. */
const modified = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** The newest modification time of a folder's files and of the folders themselves (a deleted file changes its folder). */
function newest(folder) {
  let time = modified(folder);
  if (time === 0) return 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    time = Math.max(time, entry.isDirectory() ? newest(path) : modified(path));
  }
  return time;
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Runs a program of npm or of Node; its output goes to stderr, so that the caller's stdout stays its own. */
function run(what, command, args) {
  console.error(`${what} ...`);
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32" && command === "npm", // npm is a .cmd there
  });
  if (status !== 0)
    fail(`${command} ${args.join(" ")} failed${error === undefined ? "" : `: ${error.message}`}`);
}

/** Installs the packages if they are missing or older than the lock. */
function install() {
  const marker = join(root, "node_modules/.package-lock.json"); // npm writes it last
  const lock = join(root, "package-lock.json");
  if (modified(marker) >= modified(lock)) return;
  if (existsSync(marker) && sameLock(marker, lock)) {
    const now = new Date();
    utimesSync(marker, now, now); // a checkout that only touched the lock
    return;
  }
  run("installing packages (npm ci)", "npm", ["ci", "--no-audit", "--no-fund"]);
}

/** Whether every package that is installed is in the lock in the same version, and none but optional ones are missing. */
function sameLock(marker, lock) {
  const installed = JSON.parse(readFileSync(marker, "utf8")).packages;
  const { "": _root, ...wanted } = JSON.parse(readFileSync(lock, "utf8")).packages;
  const key = (entry) => `${entry.version} ${entry.integrity} ${entry.resolved} ${JSON.stringify(entry.bin)}`;
  return (
    Object.entries(wanted).every(([path, entry]) =>
      installed[path] === undefined ? entry.optional === true : key(installed[path]) === key(entry),
    ) && Object.keys(installed).every((path) => wanted[path] !== undefined)
  );
}

/** Compiles all packages if a source is newer than the last build. */
function build() {
  const stamp = join(root, ".cache/built");
  const packages = ["test", ...readdirSync(join(root, "packages")).map((name) => join("packages", name))].map(
    (folder) => join(root, folder),
  );
  const inputs = [join(root, "tsconfig.base.json"), join(root, "tsconfig.packages.json")];
  const changed = Math.max(
    ...inputs.map(modified),
    ...packages.flatMap((folder) => [newest(join(folder, "src")), modified(join(folder, "tsconfig.json"))]),
    ...packages.map((folder) => modified(join(folder, "package.json"))),
  );
  const complete = packages.every((folder) => existsSync(join(folder, "dist/index.js")));
  if (complete && modified(stamp) > changed) return;
  const started = new Date();
  run("compiling", process.execPath, ["node_modules/typescript/bin/tsc", "-b", "tsconfig.packages.json"]);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, "");
  utimesSync(stamp, started, started); // a source saved meanwhile counts as newer
}

/** Stops if a package of this repository is not linked: npm ci links those of the lock alone. */
function checkLinked() {
  for (const folder of readdirSync(join(root, "packages"))) {
    const manifest = join(root, "packages", folder, "package.json");
    if (!existsSync(manifest)) continue;
    const { name } = JSON.parse(readFileSync(manifest, "utf8"));
    if (!existsSync(join(root, "node_modules", name)))
      fail(
        `packages/${folder}: ${name} is not linked into node_modules; run npm install, which also adds it to the lock`,
      );
  }
}

/** Checks the version of Node, installs, and compiles if asked to. */
export function ready(options) {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < MINIMUM_NODE[0] || (major === MINIMUM_NODE[0] && minor < MINIMUM_NODE[1])) {
    fail(`Node ${process.versions.node} is too old: Node ${MINIMUM_NODE.join(".")} or later is needed`);
  }
  install();
  checkLinked();
  if (options.build) build();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  ready({ build: process.argv.includes("--build") });
}
