/** Existing files are replaced only on request, and then all or none of them, whenever the process is killed. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { before, suite, test } from "node:test";
import { type Result, tiedlora } from "./support/command.ts";
import { onDisk } from "./support/faults.ts";
import { temporary } from "./support/model-directory.ts";
import { attempt, filesIn, type Output, prepare } from "./support/outputs.ts";

const folder = temporary();
before(() => prepare(folder));

type Files = Readonly<Record<string, string>>;

/** A copy of what a command has written before, with a file of somebody else's in it, and in its folders. */
function older(command: Output): { readonly out: string; readonly files: Files } {
  const out = join(mkdtempSync(join(folder, "out-")), "dir");
  cpSync(join(folder, "old", command), out, { recursive: true });
  writeFileSync(join(out, "notes.txt"), "mine");
  if (command === "train") {
    writeFileSync(join(out, "logs", "notes.txt"), "mine");
    mkdirSync(join(out, "checkpoints", "mine"));
    writeFileSync(join(out, "checkpoints", "mine", "notes.txt"), "mine");
  }
  return { out, files: filesIn(out) };
}

/** Without what differs between two runs: clocks, and paths of the folder itself. */
function lasting(files: Files, out: string): Files {
  return Object.fromEntries(
    Object.entries(files)
      .filter(([name]) => !/logs\/(events|metrics)|notes\.txt/.test(name))
      .map(([name, text]) => [name, name === "run.yaml" ? text.replaceAll(out, "OUT") : text]),
  );
}

/** What the command would have written, had there been nothing. */
const fresh = new Map<Output, Files>();
async function freshFiles(command: Output): Promise<Files> {
  const out = join(folder, `fresh-${command}`);
  if (!fresh.has(command)) fresh.set(command, lasting((await attempt(command, folder, out)).files, out));
  return fresh.get(command)!;
}

const notes = (files: Files): Files => Object.fromEntries(Object.entries(files).filter(([name]) => name.endsWith("notes.txt"))); // prettier-ignore

/** The command without what allows it to replace. */
async function plain(command: Output, out: string): Promise<Result> {
  const model = ["--model", join(folder, "model"), "--backend", "reference"];
  const adapter = ["--adapter", join(folder, "adapter-2")];
  const argv: Readonly<Record<Output, readonly string[]>> = {
    train: ["train", ...model, "--data", join(folder, "train.jsonl"), "--seq", "32", "--rank", "2", "--steps", "1"],
    sweep: ["sweep", join(folder, "grid-2.yaml")],
    report: ["report", join(folder, "sweep")],
    merge: ["merge", ...model, ...adapter],
    export: ["export", ...model, ...adapter, "--format", "peft-lora"],
  }; // prettier-ignore
  return tiedlora(...argv[command], "--out", out);
}

suite("what is there", () => {
  for (const [command, message] of [
    ["train", /a finished run of 6 steps is in there; replace it by --restart, or give another directory/],
    ["report", /report\.html, runs\.csv, summary\.csv are there already; replace by --force/],
    ["merge", /config\.json, model\.safetensors, .* are there already; replace by --force/],
    ["export", /adapter_config\.json, adapter_model\.safetensors are there already; replace by --force/],
  ] as const) {
    test(`is not replaced without a word: ${command}`, async () => {
      const { out, files } = older(command);
      const { code, info } = await plain(command, out);
      assert.equal(code, 1);
      assert.match(info, message);
      assert.deepEqual(filesIn(out), files);
    });

    test(`is replaced when asked to, and files of others stay: ${command}`, async () => {
      const { out, files } = older(command);
      const outcome = await attempt(command, folder, out);
      assert.equal(outcome.code, 0, outcome.info);
      assert.deepEqual(lasting(outcome.files, out), await freshFiles(command));
      assert.deepEqual(notes(outcome.files), notes(files));
    });
  }

  test("is not mixed with something else, whatever is asked for", async () => {
    const put = (command: Output, into: Output, ...more: string[]): Promise<Result> => {
      const { out } = older(into);
      const files = filesIn(out);
      return (more.length > 0 ? attempt(command, folder, out) : plain(command, out)).then((result) => {
        assert.deepEqual(filesIn(out), files, `${command} into that of ${into}`);
        return result;
      });
    };
    for (const [command, into, message] of [
      ["train", "sweep", /the results of a sweep is in there|the results of a sweep/],
      ["train", "merge", /a model is in there; give another directory/],
      ["export", "train", /a training run is in there; give another directory/],
      ["export", "merge", /a model is in there; give another directory/],
      ["merge", "train", /a training run is in there; give another directory/],
      ["merge", "export", /an adapter is in there; give another directory/],
      ["sweep", "train", /a training run is in there; give another directory/],
    ] as const) {
      for (const force of [[], ["--force"]]) {
        const { code, info } = await put(command, into, ...force);
        assert.equal(code, 1, `${command} into that of ${into}`);
        assert.match(info, message);
      }
    }
  });

  test("is an adapter alone: train neither replaces nor resumes it", async () => {
    const { out, files } = older("export");
    for (const how of [[], ["--resume"]]) {
      const result = await attempt("train", folder, out, "--resume", ...how);
      assert.equal(result.code, 1);
      assert.match(result.info, /but an adapter, which would be lost; .*--init-from/);
      assert.deepEqual(filesIn(out), files);
    }
    assert.match((await plain("train", out)).info, /an adapter is in there; replace it by --restart, .*--init-from/); // prettier-ignore
    assert.deepEqual(filesIn(out), files);
  });

  test("stays when a restarted run comes to nothing", async () => {
    const { out, files } = older("train");
    const outcome = await attempt("train", folder, out, "--lr", "1e30", "--warmup", "0", "--eval-every", "100", "--save-every", "100"); // prettier-ignore
    assert.equal(outcome.code, 3, outcome.info);
    assert.deepEqual(outcome.files, files);
    const wrong = await attempt("train", folder, out, "--model", join(folder, "nowhere"));
    assert.deepEqual([wrong.code, wrong.files], [2, files]);
  });

  test("an empty path does not mean the current folder", async () => {
    const here = readdirSync(".");
    const given = ["--model", join(folder, "model"), "--adapter", join(folder, "adapter-1")];
    const data = ["--data", join(folder, "train.jsonl")];
    for (const argv of [
      ["train", "--model", join(folder, "model"), ...data],
      ["merge", ...given],
      ["export", ...given, "--format", "native"],
      ["import", ...given],
      ["report", join(folder, "sweep")],
      ["sweep", join(folder, "grid-1.yaml")],
    ]) {
      const { code, info } = await tiedlora(...argv, "--out", "");
      assert.equal(code, 2, argv[0]);
      assert.match(info, /'' is invalid\. expected a path \('\.' for the current directory\)/);
    }
    const config = join(folder, "empty-out.yaml");
    writeFileSync(config, `model: ${join(folder, "model")}\ndata: ${join(folder, "train.jsonl")}\nout: ""\n`);
    const { code, info } = await tiedlora("train", "--config", config);
    assert.deepEqual([code, /line 3: out is ""; expected a path/.test(info)], [2, true], info);
    const grid = join(folder, "empty-grid.yaml");
    writeFileSync(grid, readFileSync(join(folder, "grid-1.yaml"), "utf8").replace(/^out: .*$/m, 'out: ""'));
    assert.match((await tiedlora("sweep", grid)).info, /out: expected a folder/);
    assert.deepEqual(readdirSync("."), here);
  });
});

/** Of a process that has ended: this one lives on, though it is taken for one that was killed. */
const DEAD = spawnSync(process.execPath, ["--version"]).pid;

suite("a process that is killed at any change that it makes", () => {
  /** As if the process had been killed after so many changes. Whether it had come to its end. */
  async function killedAfter(changes: number, command: Output, out: string): Promise<boolean> {
    const { code } = await onDisk({ code: "EROFS", after: changes }, out, () =>
      attempt(command, folder, out),
    );
    for (const name of readdirSync(out)) {
      if (name.startsWith(".lock.")) rmSync(join(out, name));
      const [, before, after] = /^(\..+\.)\d+(-\d+@[^/]+\.(?:tmp|old|swap))$/.exec(name) ?? [];
      if (before !== undefined) renameSync(join(out, name), join(out, `${before}${DEAD}${after}`));
    }
    return code === 0;
  }

  for (const command of ["report", "merge", "export"] as const) {
    test(`${command}: the old files or the new, or for a moment none of those that refer to others`, async () => {
      const wanted = await freshFiles(command);
      let [old, replaced, none] = [0, 0, 0];
      for (let changes = 0; ; changes++) {
        const { out, files } = older(command);
        const done = await killedAfter(changes, command, out);
        const left = Object.fromEntries(Object.entries(filesIn(out)).filter(([name]) => !basename(name).startsWith("."))); // prettier-ignore
        const isOld = JSON.stringify(lasting(left, out)) === JSON.stringify(lasting(files, out));
        const isNew = JSON.stringify(lasting(left, out)) === JSON.stringify(wanted);
        const key = { report: "summary.csv", merge: "config.json", export: "adapter_config.json" }[command];
        assert.ok(isOld || isNew || !(key in left), `${changes}: ${Object.keys(left).join()}`);
        if (isOld) old++;
        else if (isNew) replaced++;
        else none++;
        const again = await attempt(command, folder, out);
        assert.equal(again.code, 0, again.info);
        assert.deepEqual(lasting(again.files, out), wanted, `${changes}: and then again`);
        assert.deepEqual(notes(again.files), notes(files));
        assert.deepEqual(Object.keys(again.files).filter((name) => basename(name).startsWith(".")), []); // prettier-ignore
        if (done) break;
      }
      assert.ok(old > 3 && replaced > 0 && none > 0, `${old} old, ${replaced} new, ${none} neither`);
    });
  }

  test("train --restart: the old run stands until the new one has a checkpoint to go on from", async () => {
    const wanted = await freshFiles("train");
    const all: string[] = [];
    const told = (syscall: string, path: string): void => void all.push(`${syscall} ${basename(path)}`);
    const whole = older("train").out;
    await onDisk({ code: "EROFS", after: Infinity, told }, whole, () => attempt("train", folder, whole));
    const settles = all.indexOf("rename .restart");
    assert.ok(settles > 10 && settles + 10 < all.length, all.join());
    const around = [-1, 0, 1, 2, 5].map((offset) => settles + offset);
    const long = process.env["TIEDLORA_LONG"] !== undefined;
    const points = long
      ? all.keys()
      : [5, settles >> 1, ...around, (settles + all.length) >> 1, all.length - 3];
    let [old, replaced] = [0, 0];
    for (const changes of points) {
      const { out, files } = older("train");
      await killedAfter(changes, "train", out);
      const left = Object.fromEntries(Object.entries(filesIn(out)).filter(([name]) => !name.startsWith("."))); // prettier-ignore
      const isOld = JSON.stringify(left) === JSON.stringify(files);
      const stands = isOld && !existsSync(join(out, ".replacing"));
      const goesOn = await attempt("train", folder, out, "--resume");
      if (stands && /--seed 2|started with 1/.test(goesOn.info)) {
        old++;
        assert.equal(goesOn.code, 2, "it is the old run, of another seed");
      } else {
        replaced++;
        assert.equal(goesOn.code, 0, `${changes}: ${goesOn.info}`);
        assert.deepEqual(lasting(goesOn.files, out), wanted, `${changes}`);
        assert.deepEqual(Object.keys(goesOn.files).filter((name) => name.startsWith(".")), []); // prettier-ignore
      }
      assert.deepEqual(notes(filesIn(out)), notes(files));
    }
    assert.ok(old > 0 && replaced > 0, `${old} old, ${replaced} new`);
  });
});
