/** A folder belongs to one process: a second process gets an error that names the owner, and a killed one blocks nobody. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { suite, test } from "node:test";
import { lock, withLock } from "../src/run/lock.ts";
import { ended, start, startScript, tiedlora } from "./support/command.ts";
import { endless } from "./support/endless.ts";

const { at, training: run, sweep } = await endless();
const training = (out: string, ...more: string[]): string[] =>
  run(out, ..."--save-every 5 --json".split(" "), ...more);

const locks = (directory: string): string[] =>
  readdirSync(directory).filter((name) => name.startsWith(".lock."));

/** The name of a lock: of a process of this machine that has ended, unless something else is said. */
function lockName({ pid = 0, start = "1-1", host = hostname() } = {}): string {
  const dead = pid === 0 ? spawnSync(process.execPath, ["--version"]).pid : pid;
  return `.lock.${dead}.${start}.${encodeURIComponent(host)}`;
}

/** A folder with such a lock in it. */
function lockedFolder(name: string, of: Parameters<typeof lockName>[0] = {}): { path: string; file: string } {
  const path = at(name);
  const file = lockName(of);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, file), "");
  return { path, file };
}

suite("two trainings into one folder", () => {
  test("the second is refused and says whose the folder is; the first does not notice", async () => {
    const first = start(...training("one"));
    await new Promise((resolve) => first.stdout!.once("data", resolve));
    assert.equal(locks(at("one")).length, 1);
    for (const how of [[], ["--restart"], ["--resume"]]) {
      const { code, info } = await tiedlora(...training("one", ...how));
      assert.equal(code, 1);
      const expected = `${at("one")} is in use by process ${first.pid} on this machine, ${hostname()}: wait for it`;
      assert.ok(info.includes(expected), info);
    }
    const into = ["--model", at("model"), "--backend", "reference", "--adapter", at("adapter")];
    const exported = await tiedlora("export", ...into, "--format", "native", "--force", "--out", at("one"));
    assert.match(exported.info, /is in use by process/);
    const end = ended(first);
    first.kill("SIGINT");
    const { code, info } = await end;
    assert.equal(code, 130, info);
    assert.deepEqual(locks(at("one")), [], "it gave the folder back");
  });

  test("after a kill the folder is free, and what was left of the lock goes", async () => {
    const first = start(...training("killed"));
    await new Promise((resolve) => first.stdout!.once("data", resolve));
    const end = ended(first);
    first.kill("SIGKILL");
    await end;
    assert.equal(locks(at("killed")).length, 1);
    const { code, info } = await tiedlora("train", "--resume", "--out", at("killed"), "--steps", "1");
    assert.equal(code, 0, info);
    assert.deepEqual(locks(at("killed")), []);
  });

  test("a second Ctrl-C does not leave the folder locked", async () => {
    const child = startScript("terminal.ts", ...training("twice"));
    await new Promise((resolve) => child.stdout!.once("data", resolve));
    const end = ended(child);
    child.kill("SIGINT");
    assert.equal((await end).code, 130);
    assert.deepEqual(locks(at("twice")), []);
  });
});

test("two sweeps share a folder; one into the folder of a training that runs is refused", async () => {
  const command = sweep("sweep", "method: [lora], rank: 2", 1_000_000);
  const first = start(...command, "--json");
  const end = ended(first);
  await new Promise((resolve) => first.stdout!.once("data", resolve));
  const second = start(...command);
  const secondEnd = ended(second);
  await new Promise((resolve) => second.stderr!.once("data", resolve));
  second.kill("SIGINT");
  const { code, info } = await secondEnd;
  assert.equal(code, 130, info);
  assert.match(info, /2 runs, 1 of them finished earlier; .*; others are at work there, too/);
  first.kill("SIGINT");
  await end;
  assert.deepEqual(locks(at("sweep")), []);

  const release = await lock(at("trained"));
  const refused = await tiedlora(...command, "--out", at("trained"));
  assert.deepEqual([refused.code, refused.info.includes(`in use by process ${process.pid} on this machine`)], [1, true], refused.info); // prettier-ignore
  await release();
});

suite("a lock", () => {
  test("of a process that has ended is taken over, also if its number is another's by now", async () => {
    for (const of of [{}, { pid: process.ppid }, { pid: process.pid }]) {
      if (of.pid !== undefined && !existsSync("/proc/self/stat")) continue; // a start that is not known counts as its own
      const { path, file } = lockedFolder(`stale-${of.pid ?? "dead"}`, of);
      await withLock(path, async () => {
        assert.ok(!locks(path).includes(file));
        assert.equal(locks(path).length, 1);
        return Promise.resolve();
      });
      assert.deepEqual(readdirSync(path), []);
    }
  });

  test("of another machine is not, and the message says which file to delete", async () => {
    const { path, file } = lockedFolder("elsewhere", { pid: 7, host: "other.host/x" });
    const old = new Date(Date.now() - 60_000);
    utimesSync(join(path, file), old, old);
    await assert.rejects(lock(path), (error: Error) => {
      assert.equal(error.name, "FolderInUseError");
      assert.ok(error.message.includes("process 7 on another machine, other.host/x"), error.message);
      assert.ok(error.message.includes(`delete ${join(path, file)}`), error.message);
      return true;
    });
    assert.deepEqual(readdirSync(path), [file]);
  });

  test("is not a file whose name only begins like a lock's", async () => {
    const { path, file } = lockedFolder("foreign", { pid: 7 });
    renameSync(join(path, file), join(path, ".lock.1.x.%zz"));
    await withLock(path, async () => Promise.resolve(assert.equal(locks(path).length, 2)));
    assert.deepEqual(readdirSync(path), [".lock.1.x.%zz"]);
  });

  test("is not given twice within a process, and is free again afterwards", async () => {
    const path = at("own");
    const release = await lock(path);
    await assert.rejects(lock(path), /is in use by process \d+ on this machine/);
    await release();
    await (
      await lock(path)
    )();
    assert.ok(!existsSync(path), "a folder that was made for it, and stayed empty, is gone");
  });

  test("that some want at the same moment, over one that is stale, is given to exactly one of them", async () => {
    const [racers, rounds] = [4, 4];
    const paths = Array.from({ length: rounds }, (_, i) => lockedFolder(`race-${i}`).path);
    const children = Array.from({ length: racers }, () => startScript("racer.ts", ...paths));
    await Promise.all(children.map((child) => new Promise((resolve) => child.stdout!.once("data", resolve))));
    const begin = Date.now() + 300;
    const ends = children.map(ended);
    for (const child of children) child.stdin!.end(String(begin));
    const won = new Map<string, number>();
    for (const { code, out, info } of await Promise.all(ends)) {
      assert.equal(code, 0, info);
      for (const [, path] of out.matchAll(/^won (.*)$/gm)) won.set(path!, (won.get(path!) ?? 0) + 1);
    }
    assert.deepEqual([...won.values()], paths.map(() => 1)); // prettier-ignore
    for (const path of paths) assert.deepEqual(readdirSync(path), [".over"]); // prettier-ignore
  });
});
