/** A Slurm cluster of one node, this machine, that runs while a test does. It needs neither systemd nor munge. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { hostname, userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Why there is no Slurm here; false if there is. */
export const NO_SLURM: string | false = ["slurmctld", "slurmd", "sbatch"].every(
  (name) => spawnSync(name, ["--help"]).error === undefined,
)
  ? false
  : "slurm-wlm is not installed: scripts/setup-system.sh installs it";

export interface Slurm {
  /** The environment for Slurm's commands. */
  readonly env: NodeJS.ProcessEnv;
  /** Runs one of Slurm's commands; returns what it prints. */
  command(name: string, ...argv: string[]): string;
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts it with its files in `directory`, for so many tasks at once. */
export async function startSlurm(directory: string, tasks: number): Promise<Slurm> {
  for (const name of ["state", "spool"]) mkdirSync(join(directory, name), { recursive: true });
  const [host, user] = [hostname().split(".")[0]!, userInfo().username];
  const at = (name: string): string => join(directory, name);
  const settings = {
    ClusterName: "test", SlurmctldHost: `${host}(127.0.0.1)`, SlurmUser: user, SlurmdUser: user, AuthType: "auth/none",
    SlurmctldPort: await freePort(), SlurmdPort: await freePort(),
    SlurmctldPidFile: at("slurmctld.pid"), SlurmdPidFile: at("slurmd.pid"),
    SlurmctldLogFile: at("slurmctld.log"), SlurmdLogFile: at("slurmd.log"),
    StateSaveLocation: at("state"), SlurmdSpoolDir: at("spool"),
    ProctrackType: "proctrack/linuxproc", TaskPlugin: "task/none", MpiDefault: "none",
    SelectType: "select/cons_tres", SelectTypeParameters: "CR_CPU", SchedulerParameters: "bf_interval=1,sched_interval=1",
    PreemptType: "preempt/partition_prio", PreemptMode: "REQUEUE",
    JobAcctGatherType: "jobacct_gather/none", AccountingStorageType: "accounting_storage/none",
    SlurmdParameters: "config_overrides", ReturnToService: 2, KillWait: 30,
  }; // prettier-ignore
  const lines = Object.entries(settings).map(([key, value]) => `${key}=${value}`);
  lines.push(`NodeName=${host} NodeAddr=127.0.0.1 CPUs=${tasks} State=UNKNOWN`);
  lines.push("PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1");
  lines.push("PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9"); // preempts jobs of the other one
  writeFileSync(at("slurm.conf"), `${lines.join("\n")}\n`);
  writeFileSync(at("cgroup.conf"), "CgroupPlugin=disabled\n");
  const env = { ...process.env, SLURM_CONF: at("slurm.conf") };
  const daemon = (name: string, ...argv: string[]): ChildProcess =>
    spawn(name, ["-D", "-f", at("slurm.conf"), ...argv], { env, stdio: "ignore" });
  const daemons = [daemon("slurmctld", "-i"), daemon("slurmd", "-N", host)];
  const command = (name: string, ...argv: string[]): string => {
    const { status, stdout, stderr } = spawnSync(name, argv, { env, encoding: "utf8" });
    if (status !== 0) throw new Error(`${name} ${argv.join(" ")}: ${stderr}`);
    return stdout.trim();
  };
  const stop = async (): Promise<void> => {
    const ends = daemons
      .filter(({ exitCode }) => exitCode === null)
      .map((one) => new Promise((resolve) => one.on("exit", resolve)));
    for (const one of daemons) one.kill("SIGTERM");
    await Promise.all(ends);
  };
  for (let i = 0; i < 120; i++) {
    const { stdout } = spawnSync("sinfo", ["--noheader", "--format", "%T"], { env, encoding: "utf8" });
    if (stdout.trim() === "idle") return { env, command, stop };
    await sleep(250);
  }
  await stop();
  throw new Error(`Slurm does not become ready; its logs are in ${directory}`);
}
