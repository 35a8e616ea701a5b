import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { readText } from "../src/format.ts";
import { recoverSwaps, Swap } from "../src/node/swap.ts";
import { directoryFiles, stageFile, writeFileAtomic, writeFilesAtomic } from "../src/node.ts";

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

test("an undoing of a replacement that is cut off itself can be finished", async () => {
  const inner = mkdtempSync(join(directory, "swap-"));
  const path = (name: string): string => join(inner, name);
  const contents = (): Record<string, string> =>
    Object.fromEntries(readdirSync(inner).map((name) => [name, readFileSync(path(name), "utf8")]));
  for (const before of [{ b: "old" }, { b: "old", key: "old" }, { a: "old", b: "old", key: "old" }]) {
    for (const [name, text] of Object.entries(before)) writeFileSync(path(name), text);
    const swap = await Swap.begin(inner, "0-1", ["a", "b", "key"], []);
    mkdirSync(path("a")); // a directory, which is neither removed nor replaced by a file: this cuts the undoing off
    for (const name of ["b", "key"]) writeFileSync(path(name), "new");
    await swap.undo();
    assert.ok(!existsSync(path("key")), "the new files are not whole, so the key file is gone");
    rmSync(path("a"), { recursive: true });
    await recoverSwaps(inner, () => false);
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
