/** Sweeps on Slurm: the script is an array of agents; one that is put back into the queue loses nothing. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RunStore } from "../../experiments/src/node/sweep/store.ts";
import { slurmScript, submit } from "../src/sweep-slurm.ts";
import type { RunResult } from "../../experiments/src/sweep/config.ts";
import { ended, scriptArguments, start, tiedlora } from "./support/command.ts";
import { temporary, writeModel, writeSums } from "./support/model-directory.ts";
import { NO_SLURM, type Slurm, startSlurm } from "./support/slurm.ts";

suite("a sweep on Slurm", async () => {
  const folder = temporary();
  await writeModel(join(folder, "model"));
  writeSums(join(folder, "data"));
  const file = join(folder, "grid.yaml");
  writeFileSync(
    file,
    `name: a small grid
on: { model: ${folder}/model, tasks: [gsm8k], data: ${folder}/data, seq: 32, loss-only: true }
out: ${folder}/alone
vary: { method: [lora, vera, tl6], rank: 2, seed: [0, 1] }
train: { steps: 200, batch: 2, lr: 0.01, dropout: 0.1 }
evaluate: { every: 50, test: 4 }
`,
  );

  test("is a script of agents, with requeue, a signal before the time is up, and logs beside the results", async () => {
    const out = join(folder, "it's 100%");
    const { code, out: script, info } = await tiedlora("sweep", file, "--out", out, "--slurm", "16", "--parallel", "2"); // prettier-ignore
    assert.equal(code, 0, info);
    const options = [...script.matchAll(/^#SBATCH --(.*)$/gm)].map(([, option]) => option);
    assert.deepEqual(options, [
      "job-name=a-small-grid",
      "array=1-7",
      "requeue",
      "open-mode=append",
      "signal=B:TERM@60",
      `output=${folder}/it's 100%%/slurm/%A_%a.log`,
    ]);
    assert.ok(existsSync(join(out, "slurm")), "Slurm does not make the folder of the logs");
    assert.match(script, / sweep \S+grid\.yaml --out '.*it'\\''s 100%' --backend cpu --parallel 2 &\n/);
    const both = await tiedlora("sweep", file, "--slurm", "--status");
    assert.deepEqual([both.code, both.info], [2, "error: --status and --slurm are both given; give one of them"]); // prettier-ignore
  });

  test("without Slurm, --submit says so", async () => {
    const argv = [
      ...scriptArguments("tiedlora.ts"),
      "sweep",
      file,
      "--out",
      join(folder, "none"),
      "--submit",
    ];
    const env = { ...process.env, PATH: "" };
    const { code, info } = await ended(spawn(process.execPath, argv, { env, stdio: ["ignore", "pipe", "pipe"] })); // prettier-ignore
    assert.equal(code, 1, info);
    assert.match(
      info,
      /sbatch is not installed here; print the script by --slurm, and submit it where Slurm is/,
    );
  });

  /** An agent that does nothing until it is asked to stop; when it is started again, all has ended. */
  const AGENT = `
    const { SLURM_RESTART_COUNT: restarts = "" } = process.env;
    console.log("start " + restarts);
    if (restarts === "") setInterval(() => {}, 1000);
    process.on("SIGTERM", () => { console.log("asked to stop"); process.exit(130); });`;

  /** Submits two tasks whose time is up in a minute, with this agent; returns what agents and script write to the logs. */
  function submitShort(env: NodeJS.ProcessEnv): () => string[] {
    const logs = join(folder, "short", "slurm");
    mkdirSync(logs, { recursive: true });
    const command = [process.execPath, "-e", AGENT];
    const script = slurmScript({ name: "short", agents: 2, out: join(folder, "short"), command });
    submit(script, { ...env, SBATCH_TIMELIMIT: "1" });
    return () => readdirSync(logs).map((log) => readFileSync(join(logs, log), "utf8"));
  }

  /**
   * Waits until something has happened. Slurm lets two minutes pass before it starts a task again, so that the node has forgotten its old
   * credential: here a few seconds do.
   */
  async function hurrying(slurm: Slurm, happened: () => boolean): Promise<void> {
    const hurried = new Set<string>();
    for (let i = 0; i < 240 && !happened(); i++, await sleep(1000)) {
      const queue = slurm.command("squeue", "--noheader", "--format", "%i %r");
      for (const [, id] of queue.matchAll(/^(\S+) BeginTime$/gm)) {
        if (!hurried.has(id!)) slurm.command("scontrol", "update", `jobid=${id}`, "starttime=now+10");
        hurried.add(id!);
      }
    }
  }

  test(
    "has the results of one process, though a task makes way for an urgent job in the middle of a run, and is put back into the queue; tasks whose time is up start again",
    { skip: NO_SLURM },
    async () => {
      const slurm = await startSlurm(join(folder, "cluster"), 2);
      try {
        const short = submitShort(slurm.env);
        const alone = await ended(start("sweep", file, "--parallel", "1"));
        assert.equal(alone.code, 0, alone.info);
        const again = (): boolean => short().filter((log) => /^start \n[^]*asked to stop\n[^]*start 1\n/.test(log)).length === 2; // prettier-ignore
        await hurrying(slurm, again);
        assert.ok(again(), `tasks whose time is up start again:\n${short().join("---\n")}`);
        const out = join(folder, "shared");
        const argv = [...scriptArguments("tiedlora.ts"), "sweep", file, "--out", out, "--parallel", "1", "--slurm", "2", "--submit"]; // prettier-ignore
        const submitted = await ended(spawn(process.execPath, argv, { env: slurm.env, stdio: ["ignore", "pipe", "pipe"] })); // prettier-ignore
        const [, job] = /Submitted batch job (\d+)/.exec(submitted.out) ?? assert.fail(submitted.info);
        const log = (task: number): string => {
          const path = join(out, "slurm", `${job}_${task}.log`);
          return existsSync(path) ? readFileSync(path, "utf8") : "";
        };
        const until = async (what: () => boolean): Promise<void> => {
          for (let i = 0; i < 1200 && !what(); i++) await sleep(100);
          assert.ok(what(), `${log(1)}\n${log(2)}`);
        };
        await until(() => [1, 2].some((task) => /^\d\/\d gsm8k/m.test(log(task)))); // one has finished a run and begins the next
        await sleep(300);
        slurm.command("sbatch", "--partition", "urgent", "--output", "/dev/null", "--wrap", "true");
        const preempted = (task: number): boolean => log(task).includes("the same command goes on with what is missing"); // prettier-ignore
        await until(() => preempted(1) || preempted(2));
        const store = new RunStore(out);
        await until(() => readdirSync(join(out, "runs")).length === 7);
        const timeless = (results: readonly RunResult[]): unknown[] =>
          results.map(({ seconds: _s, tokensPerSecond: _t, duration: _d, ...rest }) => rest);
        const expected = await new RunStore(join(folder, "alone")).finished();
        assert.deepEqual(timeless(await store.finished()), timeless(expected));
        assert.deepEqual(await store.failures(), []);
        await until(() => [1, 2].some((task) => !preempted(task) && /^\d runs finished/m.test(log(task)))); // prettier-ignore
        slurm.command("scancel", job!);
        await until(() => slurm.command("squeue", "--noheader") === "");
      } finally {
        await slurm.stop();
      }
    },
  );
});
