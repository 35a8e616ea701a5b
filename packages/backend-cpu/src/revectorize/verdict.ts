/**
 * Whether the engine may combine pairs of 128-bit operations into 256-bit ones on this machine. Its code for that is
 * experimental, so two processes compute a spread of kernels first, one with the feature and one without: the bits must be
 * equal, and products faster. The verdict is kept for this engine, processor and code generator.
 */
import { gemmModule } from "../codegen/matmul/gemm.ts";
import { defaultTile, nodeModule, nodeProcess } from "../device/platform.ts";

/** What one process found. */
export interface Findings {
  /** A hash of each kernel's result, by the kernel's name. */
  readonly results: Readonly<Record<string, number>>;
  /** The shortest time of a matrix product, in ms: with the tile for 256-bit vectors, and with the one for 128-bit vectors. */
  readonly wideMs: number;
  readonly narrowMs: number;
}

/** Whether to use 256-bit vectors, and why. */
export interface Verdict {
  readonly on: boolean;
  /** Whether the engine has them at all. */
  readonly available: boolean;
  /** Completes "256-bit vectors are on: …" or "… are off: …". */
  readonly why: string;
}

/** Products must be at least this much faster. On processors without AVX2 they are slower. */
const FASTER = 1.1;
const OFF = { on: false, available: true } as const;
/** The time limit of a process, in ms. */
const LIMIT_MS = 60_000;

/** The outside of a check, which tests replace. */
export interface Surroundings {
  /** Runs the self-check in a process of its own. Rejects with the way in which the process failed. */
  readonly find: (revectorize: boolean) => Promise<Findings>;
  /** The file that keeps the verdict; null if there is no place for it. */
  readonly file: string | null;
}

/** The verdict: the one that is kept, or else a new one, which takes about two seconds. */
export async function verdict({ find, file }: Surroundings): Promise<Verdict> {
  const kept = file === null ? null : await read(file);
  if (kept !== null) return kept;
  const found = await judge(find);
  if (file !== null && found.keep) await write(file, found.verdict);
  return found.verdict;
}

/** A failure of the process without the feature says nothing about the feature: that verdict is not kept. */
async function judge(find: Surroundings["find"]): Promise<{ verdict: Verdict; keep: boolean }> {
  let plain: Findings;
  try {
    plain = await find(false);
  } catch (error) {
    return { verdict: { ...OFF, why: `they could not be checked: ${reason(error)}` }, keep: false };
  }
  try {
    return { verdict: compare(plain, await find(true)), keep: true };
  } catch (error) {
    return { verdict: { ...OFF, why: `a process that used them failed: ${reason(error)}` }, keep: true };
  }
}

function compare(plain: Findings, wide: Findings): Verdict {
  const names = Object.keys(plain.results);
  const unequal = names.filter((name) => plain.results[name] !== wide.results[name]);
  if (unequal.length > 0) return { ...OFF, why: `they change the results of ${unequal.join(", ")}` };
  const ratio = wide.narrowMs / wide.wideMs;
  const times = `products are ${ratio.toFixed(2)} times as fast`;
  return {
    on: ratio >= FASTER,
    available: true,
    why: `equal bits in ${names.length} kinds of kernels, and ${times}`,
  };
}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function read(file: string): Promise<Verdict | null> {
  const fs = nodeModule("node:fs/promises")!;
  try {
    const { on, why } = JSON.parse(await fs.readFile(file, "utf8")) as Partial<Verdict>;
    return typeof on === "boolean" && typeof why === "string" ? { on, available: true, why } : null;
  } catch {
    return null; // there is none, or it is damaged
  }
}

/** Writes the verdict; if that fails, the next process checks again. */
async function write(file: string, { on, why }: Verdict): Promise<void> {
  const fs = nodeModule("node:fs/promises")!;
  const path = nodeModule("node:path")!;
  const whole = `${file}.${nodeProcess!.pid}`;
  try {
    await fs.mkdir(path.dirname(file), { recursive: true });
    await fs.writeFile(whole, `${JSON.stringify({ on, why }, null, 2)}\n`);
    await fs.rename(whole, file);
  } catch {
    await fs.rm(whole, { force: true }).catch(() => undefined);
  }
}

/** This process's verdict, found once. */
let found: Promise<Verdict> | undefined;

/** Whether to use 256-bit vectors in this process. They exist in Node 24 and later (V8 13). */
export function revectorization(): Promise<Verdict> {
  const why = obstacle();
  return (found ??=
    why === null ? verdict(surroundings()) : Promise.resolve({ on: false, available: false, why }));
}

/** Why this engine has no 256-bit vectors, whatever the processor; null if it has. */
function obstacle(): string | null {
  const versions = nodeProcess?.versions ?? {};
  if (nodeProcess === undefined || "bun" in versions || "deno" in versions) return "only Node has them";
  const major = Number.parseInt(versions.v8 ?? "0", 10);
  return major >= 13 ? null : `V8 ${versions.v8} does not have them; Node 24 and later do`;
}

function surroundings(): Surroundings {
  const { env = {}, versions, arch } = nodeProcess!;
  const os = nodeModule("node:os")!;
  const path = nodeModule("node:path")!;
  const folder = env["XDG_CACHE_HOME"] || env["LOCALAPPDATA"] || path.join(os.homedir(), ".cache");
  const processor = os.cpus()[0]?.model ?? "unknown";
  const machine = JSON.stringify([versions?.v8, arch, processor]);
  const digest = nodeModule("node:crypto")!.createHash("sha256").update(machine);
  const key = digest
    .update(gemmModule(defaultTile(true), true))
    .digest("hex")
    .slice(0, 16);
  return { find: findInProcess, file: path.join(folder, "tiedlora", `revectorize-${key}.json`) };
}

/** Flags with which the loaders of this process (for TypeScript, say) work in the other, too; not those of debuggers and tests. */
const PASSED_ON = /^(--import|--require|--loader|--conditions|-r|-C)\b/;

/** Runs `check` in a new process, in which the optimizing compiler compiles everything at once. */
async function findInProcess(revectorize: boolean): Promise<Findings> {
  const processes = nodeModule("node:child_process")!;
  const script = import.meta.url.replace(/verdict(\.\w+)$/, "self-check$1");
  const print = `async ({ check }) => console.log(JSON.stringify(await check(${revectorize})))`;
  const source = `import(${JSON.stringify(script)}).then(${print})`;
  const args = [...passedOn(), "--no-liftoff", "--eval", source];
  const output = await new Promise<string>((resolve, reject) => {
    processes.execFile(
      nodeProcess!.execPath!,
      args,
      { timeout: LIMIT_MS, killSignal: "SIGKILL" },
      (error, stdout) => {
        if (error === null) return resolve(stdout);
        const how = error.killed
          ? `it did not end in ${LIMIT_MS / 1000} s`
          : (error.signal ?? `exit code ${error.code}`);
        reject(new Error(how));
      },
    );
  });
  return JSON.parse(output) as Findings;
}

function passedOn(): string[] {
  const flags = nodeProcess?.execArgv ?? [];
  return flags.filter(
    (flag, i) =>
      PASSED_ON.test(flag) ||
      (i > 0 && PASSED_ON.test(flags[i - 1]!) && !flags[i - 1]!.includes("=") && !flag.startsWith("-")),
  );
}
