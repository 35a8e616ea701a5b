/** The lasting cache: what one process keeps, another finds, and nothing that is damaged or of another version. */
import assert from "node:assert/strict";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { keptOr, type LastingKey } from "@tiedlora/kernels";
import { FolderCache, folderCache } from "@tiedlora/kernels/folder-cache";

const folders: string[] = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "folder-cache-"));
  folders.push(folder);
  return folder;
}

const KEY: LastingKey = ["a step", Int32Array.of(1, 2), Float64Array.of(NaN)];
const VALUE = {
  bytes: Uint8Array.of(0, 97, 115, 109),
  numbers: [-0, 0, NaN, -Infinity, 2 ** 40],
  rest: null,
};

test("another process finds what was kept, to the sign of zero", () => {
  const folder = join(newFolder(), "made/on/demand");
  const [writer, reader] = [new FolderCache(folder, "1"), new FolderCache(folder, "1")];
  assert.equal(reader.find("plan", KEY), undefined);
  writer.keep("plan", KEY, VALUE);
  const found = reader.find("plan", KEY) as typeof VALUE;
  assert.deepEqual([...found.bytes], [...VALUE.bytes]);
  assert.deepEqual({ ...found, bytes: VALUE.bytes }, VALUE); // strict: -0 is not 0
  assert.deepEqual([writer.counts, reader.counts], [{ plan: { found: 0, kept: 1 } }, { plan: { found: 1, kept: 0 } }]); // prettier-ignore
});

test("another key, kind, or version finds nothing", () => {
  const folder = newFolder();
  const cache = new FolderCache(folder, "1");
  cache.keep("plan", KEY, VALUE);
  const others: readonly LastingKey[] = [
    ["a step", Int32Array.of(1, 3), Float64Array.of(NaN)],
    ["a step", Int32Array.of(1, 2), Float64Array.of(-NaN, 0)],
    ["a ste", "p", Int32Array.of(1, 2), Float64Array.of(NaN)],
    ["a step"],
    [],
  ];
  for (const key of others) assert.equal(cache.find("plan", key), undefined);
  assert.equal(cache.find("code", KEY), undefined);
  assert.equal(new FolderCache(folder, "2").find("plan", KEY), undefined);
});

test("a file that is cut, altered, empty or of another key counts as missing, and is written again", () => {
  const folder = newFolder();
  const cache = new FolderCache(folder, "1");
  cache.keep("plan", ["another"], "another value");
  const other = join(folder, readdirSync(folder)[0]!);
  cache.keep("plan", KEY, VALUE);
  const file = join(
    folder,
    readdirSync(folder).find((name) => join(folder, name) !== other)!,
  );
  const whole = readFileSync(file);
  const damages: Readonly<Record<string, () => void>> = {
    empty: () => writeFileSync(file, ""),
    "of a few bytes": () => writeFileSync(file, whole.subarray(0, 20)),
    cut: () => writeFileSync(file, whole.subarray(0, -1)),
    longer: () => writeFileSync(file, Buffer.concat([whole, Buffer.of(0)])),
    "of another key": () => copyFileSync(other, file),
    ...Object.fromEntries(
      [0, 31, 32, whole.length - 1].map((at) => [
        `altered at ${at}`,
        () => writeFileSync(file, whole.map((byte, i) => (i === at ? byte ^ 4 : byte))), // prettier-ignore
      ]),
    ),
  };
  for (const [how, damage] of Object.entries(damages)) {
    damage();
    assert.equal(cache.find("plan", KEY), undefined, how);
    assert.deepEqual(keptOr(cache, "plan", () => KEY, () => VALUE), VALUE); // prettier-ignore
    assert.deepEqual(readFileSync(file), whole, how);
  }
  assert.deepEqual(readdirSync(folder).length, 2, "a partial file was left");
});

test("where nothing can be written, values are made each time", () => {
  const file = join(newFolder(), "a file");
  writeFileSync(file, "");
  for (const folder of [file, join(file, "below")]) {
    const cache = new FolderCache(folder, "1");
    let made = 0;
    for (let i = 0; i < 2; i++) assert.equal(keptOr(cache, "plan", () => KEY, () => ++made), i + 1); // prettier-ignore
    assert.deepEqual(cache.counts, {});
  }
  assert.equal(readFileSync(file, "utf8"), "");
});

test("a folder that is too large loses its oldest entries, and no file that is not one", () => {
  const folder = newFolder();
  const hex = (i: number): string => String(i).repeat(40);
  const partial = "01234567-89ab-cdef-0123-456789abcdef.part";
  const names = [
    `plan-${hex(1)}`,
    partial,
    `code-${hex(2)}`,
    `shaders-${hex(3)}`,
    `plan-${hex(4)}`,
    `plan-${hex(5)}`,
  ];
  const others = ["model.safetensors", `plan-${hex(6)}.txt`, "notes.part"];
  for (const [i, name] of [...names, ...others].entries()) {
    writeFileSync(join(folder, name), new Uint8Array(1000));
    utimesSync(join(folder, name), 1000 + i, 1000 + i);
  }
  mkdirSync(join(folder, "a folder"));
  for (const name of others) utimesSync(join(folder, name), 1, 1);
  const cache = new FolderCache(folder, "1", 5000);
  cache.keep("plan", KEY, VALUE);
  const left = readdirSync(folder).filter((name) => names.includes(name));
  assert.deepEqual(left.sort(), names.slice(4));
  assert.equal(readdirSync(folder).length, left.length + 1 + others.length + 1);
  assert.notEqual(cache.find("plan", KEY), undefined);
});

test("a folder has to be named, and the code that makes values must be known", () => {
  assert.throws(() => folderCache("", "", import.meta, []), /expected the path of a folder/);
  assert.throws(() => folderCache(newFolder(), "", {}, []), /bundle it as an ES module/);
});

test("entries belong to the code and the settings that made them", () => {
  const folder = newFolder();
  const packages = ["@tiedlora/kernels"];
  const cache = folderCache(folder, "settings", import.meta, packages);
  cache.keep("plan", KEY, VALUE);
  assert.notEqual(folderCache(folder, "settings", import.meta, packages).find("plan", KEY), undefined);
  assert.equal(folderCache(folder, "others", import.meta, packages).find("plan", KEY), undefined);
  assert.equal(folderCache(folder, "settings", import.meta, []).find("plan", KEY), undefined);
});
