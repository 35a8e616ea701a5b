/** `tiedlora sweep FILE --slurm`: a sweep as an array of Slurm tasks, each an agent that shares the folder of results. */
import { spawnSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { writing } from "tiedlora/internal/node";
import { EXIT } from "./exit.ts";
import { shellWord } from "./output.ts";

/** What the script of a sweep is made from. */
export interface SlurmSweep {
  readonly name: string;
  /** The number of tasks. */
  readonly agents: number;
  /** The folder of results. */
  readonly out: string;
  /** The command that makes a process an agent. */
  readonly command: readonly string[];
}

/** The folder of the tasks' logs, beside the results. */
const logsOf = (out: string): string => join(resolve(out), "slurm");

/**
 * The script for sbatch. A task that is asked to stop, a minute or two before its time is up or because it is preempted, saves the
 * states of its runs; other tasks go on with them, and so does the task itself once Slurm starts it again. The script names its task by
 * array and place: the last task of an array has the array's id as its own, and scontrol would take that for all of them.
 */
export function slurmScript({ name, agents, out, command }: SlurmSweep): string {
  return `#!/bin/bash
#SBATCH --job-name=${name.replace(/[^\w.-]+/g, "-")}
#SBATCH --array=1-${agents}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
#SBATCH --output=${logsOf(out).replaceAll("%", "%%")}/%A_%a.log
# Each task is an agent: it claims runs in the folder of results, and ends when all runs have ended. To submit the script again is
# safe. Options of sbatch, such as --time, --partition or --gres, go before the script's name.
cd ${shellWord(process.cwd())} || exit 1
agent=
trap '[ -z "$agent" ] || kill -TERM "$agent" 2>/dev/null' TERM
${command.map(shellWord).join(" ")} &
agent=$!
# A signal ends a wait; the agent ends once its runs are saved.
until wait "$agent"; code=$?; ! kill -0 "$agent" 2>/dev/null; do :; done
wait "$agent"
code=$?
if [ "$code" -eq ${EXIT.interrupted} ]; then
  # The time is up: what is left is for a new start. A task that was canceled or preempted is not "RUNNING" any more.
  task="\${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    state=$(squeue --noheader --jobs "$task" --format %T)
    case "$state" in
      RUNNING) scontrol requeue "$task" && break ;;
      SIGNALING | "") ;; # Slurm is still sending the signal, or is busy
      *) echo "not started again: it is $state"; break ;;
    esac
    sleep 2
  done
fi
exit "$code"
`;
}

/** Makes the folder of the tasks' logs, which Slurm does not make. */
export async function prepareLogs(out: string): Promise<string> {
  const logs = logsOf(out);
  await writing(out, () => mkdir(logs, { recursive: true }));
  return logs;
}

/** Submits a script by sbatch, with the options of its variables; returns what sbatch says. */
export function submit(script: string, env: NodeJS.ProcessEnv = process.env): string {
  const { status, stdout, stderr, error } = spawnSync("sbatch", { input: script, encoding: "utf8", env });
  if (error !== undefined && "code" in error && error.code === "ENOENT")
    throw new Error(
      "sbatch is not installed here; print the script by --slurm, and submit it where Slurm is",
    );
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`sbatch refused the script: ${stderr.trim()}`);
  return stdout.trim();
}
