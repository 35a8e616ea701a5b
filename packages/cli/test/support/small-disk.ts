/**
 * Runs every command of outputs.ts on a disk that is mounted for this process alone, and prints the outcomes as JSON.
 * Arguments: the folder that was prepared, a directory to mount on, and "full" or "read-only". Start it by `unshare --mount`.
 */
import { spawnSync } from "node:child_process";
import { cpSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { attempt, type Outcome, OUTPUTS } from "./outputs.ts";

const [folder, disk, kind] = process.argv.slice(2) as [string, string, "full" | "read-only"];

function mount(...options: string[]): void {
  const { status, stderr } = spawnSync("mount", [...options, disk], { encoding: "utf8" });
  if (status !== 0) throw new Error(`mount ${options.join(" ")}: ${stderr}`);
}

const outcomes: Record<string, Outcome> = {};
mount("-t", "tmpfs", "-o", "size=2m", "none");
for (const command of OUTPUTS) cpSync(join(folder, "old", command), join(disk, command), { recursive: true });
if (kind === "read-only") mount("-o", "remount,ro");
for (const command of OUTPUTS) {
  const { bavail, bsize } = statfsSync(disk);
  const filler = join(disk, "filler");
  if (kind === "full") writeFileSync(filler, new Uint8Array(bavail * bsize));
  outcomes[command] = await attempt(command, folder, join(disk, command));
  rmSync(filler, { force: true });
}
process.stdout.write(JSON.stringify(outcomes));
