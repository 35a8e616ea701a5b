/**
 * Disks that are full, read-only or forbidden: the error states the fault, the place and the remedy, and existing files stay.
 *
 * The disks are simulated (support/faults.ts): tests often run as root, whom permissions do not bind, and a real disk can only
 * be filled where mounting is permitted. Where it is, a test runs on real disks too.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { ended, scriptArguments, start } from "./support/command.ts";
import { type Fault, onDisk } from "./support/faults.ts";
import { temporary } from "./support/model-directory.ts";
import { attempt, filesIn, type Outcome, type Output, OUTPUTS, prepare } from "./support/outputs.ts";

const folder = temporary();
/** A device of Linux that has never space. */
const FULL = "/dev/full";
before(() => prepare(folder));

/** A copy of what a command has written before. */
function older(command: Output): { readonly out: string; readonly files: Readonly<Record<string, string>> } {
  const out = join(mkdtempSync(join(folder, "out-")), "dir");
  cpSync(join(folder, "old", command), out, { recursive: true });
  return { out, files: filesIn(out) };
}

const REASONS = {
  ENOSPC: /no space left on device \(ENOSPC\)\. The disk is full: free some space, or give another --out\./,
  EROFS: /read-only file system \(EROFS\)\. The file system is read-only: give another directory\./,
  EACCES: /permission denied \(EACCES\)\. There is no permission to do that: give another directory\./,
} as const;

function assertRefused({ code, info }: Outcome, out: string, reason: keyof typeof REASONS): void {
  assert.equal(code, 1, info);
  const [line = ""] = /^error: .*$/m.exec(info) ?? [];
  assert.ok(line.startsWith(`error: cannot write in ${out}`), line);
  assert.match(line, REASONS[reason]);
}

suite("a directory that cannot be written", () => {
  for (const code of ["EROFS", "EACCES"] as const) {
    for (const command of OUTPUTS) {
      test(`${command}: ${code}`, async () => {
        const { out, files } = older(command);
        const outcome = await onDisk({ code }, out, () => attempt(command, folder, out));
        assertRefused(outcome, out, code);
        assert.deepEqual(outcome.files, files);
      });
    }
  }

  test("a disk that turns read-only after the first look", async () => {
    for (const command of OUTPUTS) {
      const { out, files } = older(command);
      const fault: Fault = { code: "EROFS", unnoticed: true };
      const outcome = await onDisk(fault, out, () => attempt(command, folder, out));
      assertRefused(outcome, out, "EROFS");
      assert.deepEqual(outcome.files, files);
    }
  });

  test("a new directory in one that is forbidden", async () => {
    const outer = mkdtempSync(join(folder, "outer-"));
    for (const command of OUTPUTS) {
      const out = join(outer, command);
      const outcome = await onDisk({ code: "EACCES" }, outer, () => attempt(command, folder, out)).catch(
        (error: NodeJS.ErrnoException) => error.code, // there is nothing to list
      );
      assert.equal(outcome, "ENOENT");
    }
    assert.deepEqual(filesIn(outer), {});
  });
});

suite("a full disk", () => {
  for (const command of ["report", "merge", "export"] as const) {
    test(`${command} replaces all files or none, however many bytes are left`, async () => {
      let failures = 0;
      for (let space = 0; ; space = 2 * space + 1) {
        const { out, files } = older(command);
        const outcome = await onDisk({ code: "ENOSPC", space }, out, () => attempt(command, folder, out));
        if (outcome.code === 0) {
          const expected = await attempt(command, folder, join(folder, `new-${command}`));
          assert.deepEqual(outcome.files, expected.files);
          break;
        }
        failures++;
        assertRefused(outcome, out, "ENOSPC");
        assert.deepEqual(outcome.files, files, `${space} bytes`);
      }
      assert.ok(failures > 5, `it failed ${failures} times before it succeeded`);
    });
  }

  test("train keeps its last checkpoint, and goes on when there is space as if nothing had been", async () => {
    const straight = await attempt("train", folder, join(folder, "straight"));
    const total = Object.values(straight.files).reduce((sum, text) => sum + text.length, 0);
    const lasting = (files: Outcome["files"]): unknown =>
      Object.entries(files).filter(([name]) => !name.startsWith("logs/") && name !== "run.yaml");
    const stopped = new Set<string>();
    for (const share of [0, 0.3, 0.6, 0.9, 1.1]) {
      const out = join(folder, `full-${share}`);
      mkdirSync(out);
      const fault: Fault = { code: "ENOSPC", space: Math.floor(share * total) };
      const outcome = await onDisk(fault, out, () => attempt("train", folder, out));
      assertRefused(outcome, out, "ENOSPC");
      assert.deepEqual(Object.keys(outcome.files).filter((name) => name.includes(".tmp")), []); // prettier-ignore
      const saved = /step (\d) is saved; when there is space, go on with: tiedlora train --resume/.exec(
        outcome.info,
      )?.[1];
      stopped.add(saved ?? "none");
      const again = await attempt("train", folder, out, "--resume");
      assert.equal(again.code, 0, again.info);
      if (saved !== undefined) assert.match(again.info, new RegExp(`going on after step ${saved} of 6`));
      assert.deepEqual(lasting(again.files), lasting(straight.files), `${share} of the space`);
    }
    assert.ok(stopped.has("none") && stopped.size > 2, `it stopped at ${[...stopped].join(", ")}`);
  });

  test("train leaves the adapter of an earlier run in its place", async () => {
    const { out, files } = older("train");
    const outcome = await onDisk({ code: "ENOSPC", space: 2000 }, out, () => attempt("train", folder, out));
    assertRefused(outcome, out, "ENOSPC");
    for (const name of ["adapter_model.safetensors", "adapter_config.json"])
      assert.equal(outcome.files[name], files[name], name);
  });

  test("sweep keeps the runs that are finished, ends its processes, and does the others later", async () => {
    const { out, files } = older("sweep");
    const space = readFileSync(join(folder, "grid-2.yaml")).byteLength + 100; // a part of a result
    const outcome = await onDisk({ code: "ENOSPC", space }, out, () => attempt("sweep", folder, out));
    assertRefused(outcome, out, "ENOSPC");
    const results = (all: Outcome["files"]): unknown =>
      Object.entries(all).filter(([name]) => name !== "sweep.yaml");
    assert.deepEqual(results(outcome.files), results(files));
    const again = await attempt("sweep", folder, out, "--json");
    assert.deepEqual([again.code, again.out.split("\n").length], [0, 1], again.info);
  });
});

suite("real disks, where they may be mounted", () => {
  /** How to get a mount of one's own: as root, in a user namespace, or by sudo. */
  const unshare = ["unshare --mount", "unshare --mount --map-root-user", "sudo -n unshare --mount"]
    .map((command) => command.split(" "))
    .find(([command = "", ...flags]) => {
      const probe = [...flags, "mount", "-t", "tmpfs", "none", folder];
      return spawnSync(command, probe).status === 0;
    });

  async function outcomesOn(disk: string, kind: "full" | "read-only"): Promise<Record<Output, Outcome>> {
    if (unshare === undefined) return simulated(disk, kind);
    const [command = "", ...flags] = unshare;
    const program = [process.execPath, ...scriptArguments("small-disk.ts"), folder, disk, kind];
    const { stdout, stderr } = spawnSync(command, [...flags, ...program], { encoding: "utf8" });
    assert.ok(stdout.startsWith("{"), stderr);
    return JSON.parse(stdout) as Record<Output, Outcome>;
  }

  async function simulated(disk: string, kind: "full" | "read-only"): Promise<Record<Output, Outcome>> {
    const fault: Fault = kind === "full" ? { code: "ENOSPC", space: 0 } : { code: "EROFS" };
    const outcomes: Record<string, Outcome> = {};
    for (const command of OUTPUTS) {
      const out = join(disk, command);
      cpSync(join(folder, "old", command), out, { recursive: true });
      outcomes[command] = await onDisk(fault, disk, () => attempt(command, folder, out));
    }
    return outcomes;
  }

  for (const [kind, reason] of [
    ["full", "ENOSPC"],
    ["read-only", "EROFS"],
  ] as const)
    // prettier-ignore
    test(kind, async (t) => {
      if (unshare === undefined) t.diagnostic("simulated: there is no right to mount");
      const disk = mkdtempSync(join(folder, "disk-"));
      const outcomes = await outcomesOn(disk, kind);
      for (const command of OUTPUTS) {
        assertRefused(outcomes[command], join(disk, command), reason);
        assert.deepEqual(outcomes[command].files, filesIn(join(folder, "old", command)), command);
      }
    });
});

suite("results that nobody takes", () => {
  const ARGUMENTS = ["params", "--model", "llama-2-7b", "--method", "tl6", "--rank", "8"];

  test("end the program without a word, as in `| head`", async () => {
    const child = start(...ARGUMENTS);
    child.stdout!.destroy();
    const { code, info } = await ended(child);
    assert.deepEqual([code, info], [130, ""]);
  });

  test("for lack of space are a failure", { skip: existsSync(FULL) ? false : `no ${FULL}` }, () => {
    const stdio = ["ignore", openSync(FULL, "w"), "pipe"] as const;
    const { status, stderr } = spawnSync(
      process.execPath,
      [...scriptArguments("tiedlora.ts"), ...ARGUMENTS],
      {
        stdio: [...stdio],
        encoding: "utf8",
      },
    );
    assert.equal(status, 1, stderr);
    assert.match(stderr, /^error: the results cannot be written to the standard output: .*ENOSPC/);
  });
});
