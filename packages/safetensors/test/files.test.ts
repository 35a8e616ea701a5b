import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { recoverSwaps, Swap } from "../src/node/swap.ts";
import { bytesSource, readText } from "../src/format.ts";
import { openSafetensors, serialize } from "../src/safetensors.ts";
import {
  directoryFiles,
  fileSource,
  machineName,
  recoverDirectory,
  stageFile,
  writeFileAtomic,
  writeFileOnce,
  writeFileOnceSync,
  writeFilesAtomic,
} from "../src/node.ts";

const directory = mkdtempSync(join(tmpdir(), "tiedlora-io-"));
after(() => rmSync(directory, { recursive: true }));
const read = (name: string): string => readFileSync(join(directory, name), "utf8");

async function* chunks(...parts: string[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    if (part === "fail") throw new Error("no more");
    yield Buffer.from(part);
  }
}

test("a file is replaced at once: the old content stays until the new one is complete", async () => {
  const path = join(directory, "a.txt");
  await writeFileAtomic(path, "old");
  const staged = await stageFile(path, chunks("ne", "w"));
  assert.equal(staged.bytes, 3);
  assert.equal(read("a.txt"), "old");
  await staged.commit();
  assert.equal(read("a.txt"), "new");
  assert.deepEqual(readdirSync(directory), ["a.txt"]);
});

test("a file is written once: the first content stays, also on a file system without hard links", async (t) => {
  const path = join(directory, "once", "a.txt");
  assert.equal(await writeFileOnce(path, "first"), true);
  assert.equal(await writeFileOnce(path, "second"), false);
  for (const code of ["EPERM", "ENOTSUP"]) {
    t.mock.method(fs, "linkSync", () => {
      throw Object.assign(new Error(`${code}: no links here`), { code });
    });
    syncBuiltinESMExports();
    const other = join(directory, "once", code);
    assert.equal(await writeFileOnce(path, "third"), false);
    assert.equal(await writeFileOnce(other, "first"), true);
    assert.equal(writeFileOnceSync(other, "second"), false);
    assert.equal(read(`once/${code}`), "first");
    t.mock.restoreAll();
    syncBuiltinESMExports();
  }
  assert.equal(read("once/a.txt"), "first");
  assert.deepEqual(readdirSync(join(directory, "once")).sort(), ["ENOTSUP", "EPERM", "a.txt"]);
  t.mock.method(fs, "linkSync", () => {
    throw Object.assign(new Error("EIO: the disk is broken"), { code: "EIO" });
  });
  syncBuiltinESMExports();
  await assert.rejects(writeFileOnce(join(directory, "once", "b.txt"), "x"), /EIO/);
  t.mock.restoreAll();
  syncBuiltinESMExports();
  assert.equal(readdirSync(join(directory, "once")).length, 3, "nothing is left behind");
  rmSync(join(directory, "once"), { recursive: true });
});

test("a write that fails leaves the old content, and nothing else", async () => {
  const path = join(directory, "a.txt");
  await writeFileAtomic(path, "old");
  await assert.rejects(writeFileAtomic(path, chunks("ne", "fail")), /no more/);
  assert.equal(read("a.txt"), "old");
  assert.deepEqual(readdirSync(directory), ["a.txt"]);
});

test("of several files, none is written if one fails", async () => {
  await writeFileAtomic(join(directory, "a.txt"), "old");
  const files = [
    ["a.txt", "new"],
    ["b.txt", chunks("x", "fail")],
  ] as const;
  await assert.rejects(writeFilesAtomic(directory, files), /no more/);
  assert.equal(read("a.txt"), "old");
  assert.deepEqual(readdirSync(directory), ["a.txt"]);
  await writeFilesAtomic(directory, [
    ["a.txt", "1"],
    ["b.txt", "2"],
  ]);
  assert.deepEqual([read("a.txt"), read("b.txt")], ["1", "2"]);
});

/** Of a process that has ended. */
const DEAD = spawnSync(process.execPath, ["--version"]).pid;

test("what dead processes of this machine were writing is removed; what others write is not, for a day", async () => {
  const inner = mkdtempSync(join(directory, "shared-"));
  const owned = (pid: number, machine?: string): string =>
    `.a.json.${pid}-0${machine === undefined ? "" : `@${encodeURIComponent(machine)}`}.tmp`;
  const elsewhere = "other.host/4026532000";
  const [gone, kept] = [
    [owned(DEAD), owned(DEAD, machineName()), owned(7, elsewhere)],
    [owned(process.pid), owned(process.pid, machineName()), owned(DEAD, elsewhere)],
  ];
  for (const name of [...gone, ...kept]) writeFileSync(join(inner, name), "{");
  const before = new Date(Date.now() - 25 * 3600_000);
  utimesSync(join(inner, owned(7, elsewhere)), before, before);
  await recoverDirectory(inner);
  assert.deepEqual(readdirSync(inner).sort(), kept.sort());
  const staged = await stageFile(join(inner, "b.json"), "{}");
  assert.ok(
    readdirSync(inner).some((name) => name.endsWith(`@${encodeURIComponent(machineName())}.tmp`)),
    "files that are being written carry the machine's name",
  );
  await staged.discard();
});

test("an undoing of a replacement that is cut off itself can be finished", async () => {
  const inner = mkdtempSync(join(directory, "swap-"));
  const path = (name: string): string => join(inner, name);
  const contents = (): Record<string, string> =>
    Object.fromEntries(readdirSync(inner).map((name) => [name, readFileSync(path(name), "utf8")]));
  for (const before of [{ b: "old" }, { b: "old", key: "old" }, { a: "old", b: "old", key: "old" }]) {
    for (const [name, text] of Object.entries(before)) writeFileSync(path(name), text);
    const swap = await Swap.begin(inner, `${DEAD}-1`, ["a", "b", "key"], []);
    mkdirSync(path("a")); // a directory, which is neither removed nor replaced by a file: this cuts the undoing off
    for (const name of ["b", "key"]) writeFileSync(path(name), "new");
    await swap.undo();
    assert.ok(!existsSync(path("key")), "the new files are not whole, so the key file is gone");
    rmSync(path("a"), { recursive: true });
    await recoverSwaps(inner);
    assert.deepEqual(contents(), before);
    for (const name of Object.keys(before)) rmSync(path(name));
  }
});

test("a replacement that cannot begin leaves the old key file", async () => {
  const inner = mkdtempSync(join(directory, "begin-"));
  writeFileSync(join(inner, "key"), "old");
  writeFileSync(join(inner, ".key.0-1.swap"), ""); // the marker cannot be written
  await assert.rejects(Swap.begin(inner, "0-1", ["a", "key"], []), /EEXIST/);
  assert.equal(readFileSync(join(inner, "key"), "utf8"), "old");
});

test("bytes of a tensor go straight into shared memory, and a file that is written to has another stamp", async () => {
  const path = join(directory, "weights.safetensors");
  const weights = (first: number): Promise<Uint8Array> =>
    serialize([{ name: "w", dtype: "U8", shape: [6], bytes: () => Uint8Array.of(first, 1, 2, 3, 4, 5) }]);
  writeFileSync(path, await weights(0));
  const file = await openSafetensors(await fileSource(path));
  const memory = new Uint8Array(new SharedArrayBuffer(8));
  await file.readInto("w", 2, memory.subarray(1, 4));
  assert.deepEqual([...memory], [0, 2, 3, 4, 0, 0, 0, 0]);
  const { file: name, stamp } = await file.stamp("w");
  assert.equal(name, path);
  assert.equal((await file.stamp("w")).stamp, stamp);
  writeFileSync(path, await weights(9));
  assert.notEqual((await file.stamp("w")).stamp, stamp);
  truncateSync(path, 20);
  await assert.rejects(file.readInto("w", 0, memory.subarray(0, 6)), /found 0 bytes at offset .*cut short/);
  await file.close();
  const inMemory = await openSafetensors(bytesSource(await weights(7)));
  await inMemory.readInto("w", 0, memory.subarray(0, 2));
  assert.deepEqual([...memory], [7, 1, 3, 4, 0, 0, 0, 0]);
});

test("a directory gives its own files only; links, as the Hugging Face cache has them, are followed", async () => {
  const inner = mkdtempSync(join(directory, "inner-"));
  writeFileSync(join(directory, "blob"), "content");
  symlinkSync("../blob", join(inner, "config.json"));
  const files = await directoryFiles(inner);
  assert.equal(await readText(files, "config.json"), "content");
  assert.equal(await readText(files, "absent"), null);
  await assert.rejects(files.open("../blob"), /not the plain name of a file/);
  await assert.rejects(directoryFiles(join(directory, "nowhere")), /nowhere is not a directory/);
});
