/** However work is stopped, finished work is kept where that was requested, and the terminal is restored. */
import assert from "node:assert/strict";
import { existsSync, openSync, readdirSync, readFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { suite, test } from "node:test";
import { ended, scriptArguments, start, startScript, tiedlora } from "./support/command.ts";
import { endless } from "./support/endless.ts";
import { filesIn } from "./support/outputs.ts";

const { at, training: run, sweep: runs } = await endless();
const training = (out: string, ...more: string[]): string[] => run(out, "--save-every", "100000", ...more);
const sweep = (out: string): string[] => runs(out, "method: [lora, vera, tl6], rank: [1, 2, 3]", 100);

/** The cursor is shown and lines wrap, after the last time that was switched off. */
function assertRestored(written: string): void {
  const escape = String.fromCharCode(27);
  for (const [off, on] of [
    ["[?25l", "[?25h"],
    ["[?7l", "[?7h"],
  ] as const) {
    const last = written.lastIndexOf(escape + off);
    assert.ok(last >= 0, "a line moved");
    assert.ok(written.indexOf(escape + on, last) > last, `${off} is not taken back: ${JSON.stringify(written.slice(last))}`); // prettier-ignore
  }
}

suite("a terminal gets its cursor back and wraps lines", () => {
  for (const [way, code, signal] of [
    ["exit", 5, null],
    ["throws", 1, null],
    ["SIGINT", -1, "SIGINT"],
    ["SIGTERM", -1, "SIGTERM"],
    ["SIGHUP", -1, "SIGHUP"],
  ] as const) {
    test(`when a process that nothing prepared ends: ${way}`, async () => {
      const result = await ended(startScript("terminal.ts", "line", way));
      assert.deepEqual([result.code, result.signal], [code, signal], result.info);
      assertRestored(result.info);
    });
  }

  for (const [what, command] of [
    ["train", training("twice")],
    ["sweep", sweep("twice-sweep")],
  ] as const) {
    test(`when Ctrl-C is pressed twice: ${what}`, async () => {
      const child = startScript("terminal.ts", ...command);
      let seen = "";
      child.stderr!.on("data", (data: Buffer) => {
        const moving = /(step|run) \d+\/\d+ \[/;
        const before = moving.test(seen);
        seen += data.toString();
        if (!before && moving.test(seen)) child.kill("SIGINT");
      });
      const { code, info } = await ended(child);
      assert.equal(code, 130, info);
      assert.doesNotMatch(info, /interrupted/, "it did not wait for the end of the step");
      assertRestored(info);
    });
  }
});

suite("results that nobody takes any more", () => {
  test("are a request to stop: train keeps a checkpoint, says how to go on, and does go on", async () => {
    const child = start(...training("head", "--json"));
    child.stdout!.once("data", () => child.stdout!.destroy()); // as `| head -1` does
    const { code, info } = await ended(child);
    assert.equal(code, 130, info);
    const said =
      /nobody reads the standard output any more: stopping\n[^]*interrupted after step (\d+); go on with: tiedlora train --resume --out \S*head$/m;
    const [, step] = said.exec(info) ?? assert.fail(info);
    assert.deepEqual(readdirSync(at("head/checkpoints")), [`step-${step!.padStart(8, "0")}`]);
    const again = await tiedlora("train", "--resume", "--out", at("head"), "--steps", String(Number(step) + 1)); // prettier-ignore
    assert.equal(again.code, 0, again.info);
    assert.match(again.info, new RegExp(`going on after step ${step} of`));
  });

  test("end a sweep with what is finished", async () => {
    const child = start(...sweep("head-sweep"), "--json");
    child.stdout!.once("data", () => child.stdout!.destroy());
    const { code, info } = await ended(child);
    assert.equal(code, 130, info);
    assert.match(info, /nobody reads the standard output any more: stopping\n[^]*the same command goes on/);
    assert.ok(readdirSync(at("head-sweep/runs")).length >= 1);
  });

  test(
    "for lack of space fail, after a checkpoint",
    { skip: !existsSync("/dev/full") && "no /dev/full" },
    async () => {
      const argv = [...scriptArguments("tiedlora.ts"), ...training("full", "--json")];
      const child = spawn(process.execPath, argv, { stdio: ["ignore", openSync("/dev/full", "w"), "pipe"] });
      let info = "";
      child.stderr!.on("data", (data: Buffer) => (info += data.toString()));
      const code = await new Promise((resolve) => child.on("close", resolve));
      assert.equal(code, 1, info);
      assert.match(info, /step \d+ is saved; .*\n.*error: the results cannot be written to the standard output: .*ENOSPC/); // prettier-ignore
      const [name] = readdirSync(at("full/checkpoints"));
      assert.match(readFileSync(at("full/checkpoints", name!, "state.json"), "utf8"), /"finished": false/);
    },
  );
});

test("a run that replaces another, and is stopped before its first checkpoint, leaves that one in its place", async () => {
  const first = await tiedlora("train", ...training("stands").slice(1), "--steps", "2", "--log", "none");
  assert.equal(first.code, 0, first.info);
  const before = filesIn(at("stands"));
  const child = start(...training("stands", "--json", "--restart"));
  child.stdout!.once("data", () => child.kill("SIGINT"));
  const { code, info } = await ended(child);
  assert.equal(code, 130, info);
  assert.match(
    info,
    /interrupted after step \d+, before the first checkpoint: \S*stands still has its earlier content/,
  );
  assert.deepEqual(filesIn(at("stands")), before);
});

test("a terminal that is closed stops training as Ctrl-C does", async () => {
  const child = start(...training("hup", "--json"));
  child.stdout!.once("data", () => child.kill("SIGHUP"));
  const { code, info } = await ended(child);
  assert.equal(code, 130, info);
  assert.match(info, /interrupted after step \d+; go on with/);
});
