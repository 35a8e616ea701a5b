/** The cache across processes: a second start makes no plans and generates no code, and computes the same bits. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { cpu, type CpuBackendOptions } from "@tiedlora/backend-cpu";
import { Device } from "@tiedlora/core";
import { Library } from "../src/codegen/library.ts";
import { CpuBackend } from "../src/device/backend.ts";
import { trained, TRAINING } from "./support/trained.ts";

const folders: string[] = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cpu-cache-"));
  folders.push(folder);
  return folder;
}

interface Start {
  readonly losses: readonly number[];
  /** Functions that were compiled, and those that came from the cache. */
  readonly compiled: number;
  readonly restored: number;
  readonly counts: Readonly<Record<string, { found: number; kept: number }>>;
}

/** Trains as a process would: with a backend, a library and plans of its own. */
async function start(options: CpuBackendOptions, rows: readonly number[] = TRAINING): Promise<Start> {
  const library = new Library();
  const backend = new CpuBackend({ threads: 1, ...options }, null, library);
  const device = new Device(backend);
  const losses = await trained(device, rows);
  device.close();
  const { single, general } = library.counts;
  return {
    losses,
    compiled: single + general,
    restored: library.restored,
    counts: backend.cache?.counts ?? {},
  };
}

test("a second start takes all plans and all code from the cache", async () => {
  const cache = newFolder();
  const without = await start({});
  const first = await start({ cache });
  const second = await start({ cache });
  assert.deepEqual([first.losses, second.losses], [without.losses, without.losses]);
  assert.equal(first.compiled, without.compiled);
  assert.deepEqual([first.restored, second.restored, second.compiled], [0, first.compiled, 0]);
  const { plan, code } = first.counts;
  assert.ok(plan!.kept >= TRAINING.length && code!.kept >= TRAINING.length);
  assert.deepEqual(second.counts, { plan: { found: plan!.kept, kept: 0 }, code: { found: code!.kept, kept: 0 } }); // prettier-ignore
});

test("lengths in another order take plans from the cache, and generate only code whose functions they lack", async () => {
  const cache = newFolder();
  await start({ cache }, [5, 6, 7]);
  const other = [7, 9, 6];
  const [known, fresh] = [await start({ cache }, other), await start({}, other)];
  assert.deepEqual(known.losses, fresh.losses);
  assert.equal(known.counts["plan"]!.kept, 1);
  assert.equal(known.counts["plan"]!.found, 2);
  const again = await start({ cache }, other);
  assert.deepEqual([again.losses, again.compiled], [fresh.losses, 0]);
});

test("other threads, tiles and limits have code of their own", async () => {
  const cache = newFolder();
  const first = await start({ cache });
  const others: readonly CpuBackendOptions[] = [
    { threads: 2 },
    { tile: { rows: 4, vectors: 2, unroll: 1, fma: false } },
    { maxBytes: 2 ** 28 },
  ];
  for (const options of others) {
    const other = await start({ cache, ...options });
    assert.deepEqual([other.compiled, other.restored], [first.compiled, 0], JSON.stringify(options));
  }
});

test("a damaged cache is made again", async () => {
  const cache = newFolder();
  const first = await start({ cache });
  for (const name of readdirSync(cache)) writeFileSync(join(cache, name), "damaged");
  const second = await start({ cache });
  assert.deepEqual(second, first);
  assert.equal((await start({ cache })).compiled, 0);
});

test("a folder that cannot be made does no harm", async () => {
  const file = join(newFolder(), "a file");
  writeFileSync(file, "");
  const { losses, counts } = await start({ cache: join(file, "below") });
  assert.deepEqual([losses, counts], [(await start({})).losses, {}]);
  await assert.rejects(cpu({ cache: "" }), /expected the path of a folder/);
});

/** Runs a script of the folder `support` in a process of its own, and returns what it printed. */
function inProcess<T>(name: string, ...args: readonly string[]): Promise<T> {
  const script = join(import.meta.dirname, "support", name);
  const child = spawn(process.execPath, [...process.execArgv.filter((flag) => !flag.startsWith("--test")), script, ...args]); // prettier-ignore
  return new Promise((resolve, reject) => {
    let [out, err] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
    child.on("error", reject);
    child.on("close", (code) => (code === 0 ? resolve(JSON.parse(out) as T) : reject(new Error(err))));
  });
}

test("a function of an earlier process is not taken for another that this process makes anew", async () => {
  const cache = newFolder();
  const [roots, negatives] = [[1, 2, 3, 4, 5], [-1, -4, -9, -16, -25]]; // prettier-ignore
  assert.deepEqual(await inProcess("elementwise.ts", cache, "sqrt"), [roots]);
  assert.deepEqual(await inProcess("elementwise.ts", cache, "sqrt", "neg"), [roots, negatives]);
});

test("processes share a folder, also at the same time", async () => {
  const cache = newFolder();
  const training = (): Promise<Pick<Start, "losses" | "counts">> => inProcess("trained.ts", cache);
  const both = await Promise.all([training(), training()]);
  const third = await training();
  for (const { losses } of both) assert.deepEqual(losses, third.losses);
  for (const { found, kept } of Object.values(third.counts)) {
    assert.equal(kept, 0);
    assert.ok(found >= TRAINING.length);
  }
  assert.deepEqual(readdirSync(cache).filter((name) => name.endsWith(".part")), []); // prettier-ignore
});
