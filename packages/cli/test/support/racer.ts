/**
 * Tries to lock each of some folders, one after another, each at a moment when other processes try it too: prints "ready", is
 * told by the standard input when to begin, and prints "won" for each folder that it got.
 */
import { existsSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { lock } from "../../src/run/lock.ts";

const ROUND_MS = 3000;
/** Who comes so late, because the machine is busy, does not take part. */
const LATE_MS = 400;

process.stdout.write("ready\n");
const begin = Number(await text(process.stdin));
for (const [round, path] of process.argv.slice(2).entries()) {
  await sleep(Math.max(0, begin + round * ROUND_MS - Date.now()));
  if (Date.now() > begin + round * ROUND_MS + LATE_MS) continue;
  const release = await lock(path).catch((error: Error) => {
    if (error.name === "FolderInUseError") return null;
    throw error;
  });
  if (release === null) continue;
  const [kept, over] = [join(path, ".kept"), join(path, ".over")];
  // on a busy machine, somebody may still try when the one who won has let go
  if (!existsSync(over)) {
    process.stdout.write(`won ${path}\n`);
    writeFileSync(kept, String(process.pid), { flag: "wx" }); // it would fail in a second
    await sleep(Math.max(0, begin + (round + 1) * ROUND_MS - 500 - Date.now()));
    renameSync(kept, over);
  }
  await release();
}
