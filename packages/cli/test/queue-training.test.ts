/** Training whose micro-batches workers of a queue compute: the same bits, whatever dies or starts late, and refusals by name. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { Redis } from "ioredis";
import { ended, type Result, start, tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";
import { SERVERS, started } from "./support/queue-servers.ts";
import { duringWork, firstToWrite, worker } from "./support/queue-worker.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);
await writeModel(at("model"));
await writeModel(at("other"), { initializer_range: 0.3 });
writeExamples(at("train.jsonl"));
writeExamples(at("fewer.jsonl"), 20);

const training = (out: string, ...more: string[]): string[] => [
  "train",
  ...`--model ${at("model")} --data ${at("train.jsonl")} --valid ${at("train.jsonl")} --out ${at(out)}`.split(
    " ",
  ),
  ..."--seq 32 --rank 2 --batch 2 --dropout 0.1 --lr 0.02 --accumulate 5 --save-every 4 --eval-every 10".split(
    " ",
  ),
  ...more,
];
const digest = (out: string): string =>
  createHash("sha256").update(readFileSync(at(out, "adapter_model.safetensors"))).digest("hex"); // prettier-ignore

const MICRO_BATCH = /micro-batch \d+ \(/;
const succeeded = ({ code, info }: Result): void => assert.equal(code, 0, info);

for (const [name, { skip }] of Object.entries(SERVERS) as [
  keyof typeof SERVERS,
  (typeof SERVERS)["Valkey"],
][]) {
  suite(`training on a queue of ${name}`, { skip }, () => {
    test("has the adapter of one process, with a worker killed, one that joins late, and the server restarted", async (t) => {
      const server = await started(t, name);
      const alone = `alone-${name}`;
      succeeded(await tiedlora(...training(alone, "--steps", "24")));
      const workers = [0, 1].map(() => worker(t, server.url));
      const running = tiedlora(...training(name, "--steps", "24", "--queue", server.url));
      const early = running.then(({ code, info }) =>
        assert.fail(`the training ended early (${code}): ${info}`),
      );
      const [killed, other] = await Promise.race([firstToWrite(workers, MICRO_BATCH, 3), early]);
      const kept = other!;
      killed.child.kill("SIGKILL");
      await Promise.race([kept.wrote(MICRO_BATCH, 12), early]);
      const late = worker(t, server.url, "--idle", "5");
      kept.child.kill("SIGSTOP"); // so that the training is not over before
      await late.wrote(/^joined training/);
      kept.child.kill("SIGCONT");
      await server.restart();
      succeeded(await duringWork(running, "the end of the training", [kept]));
      assert.equal(digest(name), digest(alone));
      await late.wrote(/is over: \d+ of its micro-batches were computed here/);
      kept.child.kill("SIGINT");
      assert.equal((await kept.ended).code, 130, "an interrupted worker");
      succeeded(await late.ended); // it has been idle
    });
  });
}

suite("a queue", { skip: SERVERS.Valkey.skip }, () => {
  test("one worker works for two trainings by turns; one that is interrupted goes on", async (t) => {
    const server = await started(t, "Valkey");
    succeeded(await tiedlora(...training("one", "--steps", "8")));
    const shared = worker(t, server.url);
    const first = start(...training("a", "--steps", "100000", "--json", "--queue", server.url));
    t.after(() => first.kill("SIGKILL"));
    const result = ended(first);
    await shared.wrote(/step 3, /);
    succeeded(await tiedlora(...training("b", "--steps", "8", "--queue", server.url)));
    assert.equal(digest("b"), digest("one"));
    first.kill("SIGINT");
    const { code, info } = await result;
    assert.equal(code, 130, info);
    const step = Number(/interrupted after step (\d+)/.exec(info)![1]);
    const steps = String(step + 3);
    succeeded(await tiedlora("train", "--resume", "--out", at("a"), "--steps", steps, "--queue", server.url));
    // a loss with its options goes with the work, and what is held out is known to workers
    const preferring = (out: string, ...more: string[]): string[] =>
      `train --model ${at("model")} --data ${at("pairs.jsonl")} --out ${at(out)} --loss dpo --beta 0.3 --regularize l2=0.01 --valid-split 3 --steps 4 --batch 2 --accumulate 2 --rank 2 --seq 32`
        .split(" ")
        .concat(more);
    const pairs = Array.from({ length: 12 }, (_, i) => ({
      prompt: `say ${i}`,
      chosen: "yes",
      rejected: "no",
    }));
    writeFileSync(at("pairs.jsonl"), pairs.map((pair) => `${JSON.stringify(pair)}\n`).join(""));
    succeeded(await tiedlora(...preferring("dpo")));
    succeeded(await tiedlora(...preferring("dpo-queue", "--queue", server.url)));
    assert.equal(digest("dpo-queue"), digest("dpo"));
    const reported = (out: string): unknown[] =>
      readFileSync(at(out, "logs/metrics.jsonl"), "utf8").trim().split("\n").map((line) => {
        const { loss, accuracy, margin, l2 } = JSON.parse(line) as Record<string, number>;
        return [loss, accuracy, margin, l2];
      }); // prettier-ignore
    assert.deepEqual(reported("dpo-queue"), reported("dpo"));
    // and so does the model that a distillation learns from
    const taught = ["--loss", "distillation", "--teacher", at("other"), "--temperature", "3", "--steps", "4"];
    succeeded(await tiedlora(...training("taught", ...taught)));
    succeeded(await tiedlora(...training("taught-queue", ...taught, "--queue", server.url)));
    assert.equal(digest("taught-queue"), digest("taught"));
    assert.notEqual(digest("taught"), digest("one"));
    assert.equal(shared.child.exitCode, null);
  });

  test("who does not belong to it is refused by name", async (t) => {
    const server = await started(t, "Valkey");
    const { url, wrong } = server;
    const failed = async (code: number, expected: RegExp, ...argv: string[]): Promise<void> => {
      const result = await tiedlora(...argv);
      assert.equal(result.code, code, result.info);
      assert.match(result.info, expected);
      assert.doesNotMatch(result.info, /guess|secret/);
    };
    await failed(1, /refuses the password/, "worker", "--queue", wrong);
    await failed(1, /refuses the password/, ...training("x", "--queue", wrong));
    await failed(1, /no server answers there/, "worker", "--queue", "redis://127.0.0.1:1");
    await failed(2, /expected the address of a server, redis:/, "worker", "--queue", "http://127.0.0.1");
    await failed(
      2,
      /--accumulate is 1; give at least/,
      ...training("x", "--accumulate", "1", "--queue", url),
    );

    const client = new Redis(url);
    const announce = async (text: string): Promise<void> => {
      await client.set("tiedlora:store:announced/x", text);
      await client.sadd("tiedlora:announced", "announced/x");
    };
    await announce(JSON.stringify({ kind: "training", version: "0.0.9" }));
    await failed(
      1,
      /x: it is of version 0\.0\.9 of tiedlora, and this worker is of version/,
      "worker",
      "--queue",
      url,
    );
    await client.del("tiedlora:store:announced/x");
    client.disconnect();

    const running = start(...training("x", "--steps", "9", "--queue", url));
    t.after(() => running.kill("SIGKILL"));
    const end = ended(running);
    const announced = new Promise((resolve) => running.stderr!.on("data", (data: Buffer) => /^training \w+ on/m.test(String(data)) && resolve(null))); // prettier-ignore
    await announced;
    const base = /the base model in \S+other is not that of the training: its SHA-256 is \w+…, and that of/;
    await failed(1, base, "worker", "--queue", url, "--model", at("other"));
    const learning = start(
      ...training("y", "--loss", "distillation", "--teacher", at("model"), "--queue", url),
    );
    t.after(() => learning.kill("SIGKILL"));
    const shown = ended(learning);
    await new Promise((resolve) => learning.stderr!.on("data", (data: Buffer) => /^training \w+ on/m.test(String(data)) && resolve(null))); // prettier-ignore
    const teacher = /the model in \S+other is not the one to learn from: its SHA-256 is \w+…, and that of.*give the same model with --teacher/; // prettier-ignore
    await failed(1, teacher, "worker", "--queue", url, "--teacher", at("other"), "--data", at("fewer.jsonl"));
    learning.kill("SIGINT");
    assert.equal((await shown).code, 130);
    await failed(
      1,
      /the examples of \S+ are not those of the training/,
      "worker",
      "--queue",
      url,
      "--data",
      at("fewer.jsonl"),
    );
    await failed(
      1,
      /--model \S+: there is no such directory/,
      "worker",
      "--queue",
      url,
      "--model",
      at("nowhere"),
    );
    await failed(
      2,
      /Allowed choices are cpu, webgpu, reference/,
      "worker",
      "--queue",
      url,
      "--backend",
      "gpu",
    );
    const other = worker(t, url, "--backend", "reference");
    await other.wrote(/is on cpu, and this worker is on reference, which rounds differently/);
    await other.wrote(MICRO_BATCH);
    other.child.kill("SIGKILL");
    running.kill("SIGINT");
    assert.equal((await end).code, 130, "a training without workers can be interrupted");
  });
});
