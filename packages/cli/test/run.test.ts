import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { crc32c } from "../src/run/tensorboard.ts";
import { edit } from "./support/checkpoints.ts";
import { tiedlora, type Result } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
await writeModel(join(folder, "model"));
writeExamples(join(folder, "train.jsonl"));
writeExamples(join(folder, "valid.jsonl"), 7);

const RUN = [
  ["--model", join(folder, "model")],
  ["--data", join(folder, "train.jsonl")],
  ["--valid", join(folder, "valid.jsonl")],
  "--steps 9 --batch 2 --seq 32 --rank 2 --lr 0.02 --dropout 0.2 --eval-every 3 --save-every 2 --backend reference --json",
].flatMap((part) => (typeof part === "string" ? part.split(" ") : part));

const run = (out: string, ...more: string[]): Promise<Result> =>
  tiedlora("train", ...RUN, "--out", join(folder, out), ...more);

const read = (...path: string[]): string => readFileSync(join(folder, ...path)).toString("hex");
const text = (...path: string[]): string => readFileSync(join(folder, ...path), "utf8");
const objects = (text: string): Record<string, number>[] =>
  text.trim().split("\n").map((line) => JSON.parse(line) as Record<string, number>); // prettier-ignore
const steps = (result: Result): Record<string, number>[] =>
  objects(result.out).filter(({ step }) => step !== 0);

/** A line of metrics without what depends on the clock and on memory. */
const lasting = ({ tokens_per_second: _t, memory_bytes: _m, ...rest }: Record<string, number>): object =>
  rest;

const whole = await run("whole");
const lines = (out: string): Record<string, number>[] => objects(text(out, "logs/metrics.jsonl"));

suite("a run", () => {
  test("reports each step as one JSON object, with the evaluations that were done", () => {
    assert.equal(whole.code, 0, whole.info);
    const all = steps(whole);
    assert.deepEqual(
      all.map(({ step }) => step),
      [1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    assert.deepEqual(
      all.filter((one) => "valid_loss" in one).map(({ step }) => step),
      [3, 6, 9],
    );
  });

  test("begins with an evaluation of the model as it is, in a log of its own too", async () => {
    const [first] = objects(whole.out);
    assert.deepEqual(Object.keys(first!), ["step", "valid_loss", "valid_perplexity"]);
    assert.deepEqual(first, lines("whole")[0]);
    const plain = await tiedlora(
      "train",
      ...RUN.filter((flag) => flag !== "--json"),
      "--out",
      join(folder, "plain"),
    );
    const loss = first!["valid_loss"]!.toFixed(4);
    assert.match(plain.info, new RegExp(`step 0: validation loss ${loss}, perplexity.*step 1/9`, "s"));
  });

  test("keeps the last two checkpoints and the best, and saves the best adapter", () => {
    const best = steps(whole)
      .filter((one) => "valid_loss" in one)
      .reduce((a, b) => (b["valid_loss"]! < a["valid_loss"]! ? b : a));
    const name = `step-0000000${best["step"]}`;
    assert.deepEqual(
      readdirSync(join(folder, "whole/checkpoints")),
      [...new Set([name, "step-00000008", "step-00000009"])].sort(),
    );
    assert.match(whole.info, new RegExp(`the best step is ${best["step"]}, `));
    const body = (path: string): string =>
      readFileSync(join(folder, "whole", path))
        .subarray(-200)
        .toString("hex");
    assert.equal(body("adapter_model.safetensors"), body(`checkpoints/${name}/adapter_model.safetensors`));
  });

  test("goes on after an end in the middle with the same bits, and metrics without a seam", async () => {
    const cut = await run("cut", "--steps", "6"); // a cosine of its own: not the same run
    assert.equal(cut.code, 0);
    await assertSame("resumed", async (out) => {
      // Ends as a crash would: the files are those of step 6, with more metrics than that.
      const stopped = await run(out, "--schedule", "constant", "--warmup", "1", "--steps", "7");
      assert.equal(stopped.code, 0, stopped.info);
      return run(out, "--resume", "--schedule", "constant", "--warmup", "1", "--steps", "9");
    });
  });

  async function assertSame(out: string, interrupted: (out: string) => Promise<Result>): Promise<void> {
    const straight = await run(`${out}-straight`, "--schedule", "constant", "--warmup", "1");
    const result = await interrupted(out);
    assert.equal(result.code, 0, result.info);
    assert.match(result.info, /going on after step 7 of 9/);
    assert.deepEqual(
      steps(result).map(({ step }) => step),
      [8, 9],
    );
    assert.equal(straight.code, 0);
    for (const file of ["adapter_model.safetensors", "optimizer.safetensors"]) {
      const at = (dir: string): Buffer => readFileSync(join(folder, dir, "checkpoints/step-00000009", file));
      assert.deepEqual(tensors(at(out)), tensors(at(`${out}-straight`)), file);
    }
    assert.deepEqual(
      lines(out)
        .filter(({ step }) => step !== 7)
        .map(lasting), // step 7 was the last one then, and evaluated
      lines(`${out}-straight`).filter(({ step }) => step !== 7).map(lasting), // prettier-ignore
    );
  }

  test("that has ended does nothing more when it is resumed", async () => {
    const before = read("whole/adapter_model.safetensors");
    const again = await run("whole", "--resume");
    assert.deepEqual([again.code, again.out], [0, ""]);
    assert.equal(read("whole/adapter_model.safetensors"), before);
    assert.equal(lines("whole").length, 10);
  });

  test("stops when the validation loss has not fallen for so many evaluations", async () => {
    const early = await run("early", "--lr", "3", "--eval-every", "1", "--patience", "2", "--steps", "40");
    assert.equal(early.code, 0, early.info);
    const all = steps(early).map((one) => one["valid_loss"]!);
    const best = all.indexOf(Math.min(...all));
    assert.equal(all.length, best + 3);
    assert.match(
      early.info,
      new RegExp(`stopped early at step ${best + 3}: .*the best step is ${best + 1},`, "s"),
    );
    const again = await tiedlora(
      "train",
      "--resume",
      "--steps",
      "60",
      "--json",
      "--out",
      join(folder, "early"),
    );
    assert.deepEqual([again.code, again.out], [0, ""], "and does not go on");
  });

  test("that is not finished is not overwritten by accident", async () => {
    const checkpoint = join(folder, "cut/checkpoints/step-00000006");
    edit(checkpoint, "state.json", (text) => text.replace('"finished": true', '"finished": false'));
    const again = await run("cut");
    assert.equal(again.code, 1);
    assert.match(
      again.info,
      /a run that is not finished is in there, at step 6; go on with it by --resume, .*--restart/,
    );
    assert.equal((await run("cut", "--restart", "--steps", "1")).code, 0);
  });
});

/** The bytes of the tensors of a safetensors file: without the header, which says where it comes from. */
function tensors(file: Buffer): Buffer {
  return file.subarray(8 + Number(file.readBigUInt64LE(0)));
}

suite("a run that goes on", () => {
  test("takes its settings from its directory, and refuses others", async () => {
    const out = join(folder, "whole");
    const alone = await tiedlora("train", "--resume", "--out", out, "--json");
    assert.deepEqual([alone.code, alone.out], [0, ""], alone.info);
    const other = await tiedlora("train", "--resume", "--out", out, "--lr", "0.5");
    assert.equal(other.code, 2);
    assert.match(
      other.info,
      /--lr 0\.5: the run in .* was started with 0\.02; leave it out, or start a new run/,
    );
  });

  test("refuses other data", async () => {
    await run("data", "--steps", "2", "--save-every", "1");
    const changed = join(folder, "changed.jsonl");
    writeExamples(changed, 23);
    const file = join(folder, "data/run.yaml");
    writeFileSync(file, readFileSync(file, "utf8").replace(/^data: .*$/m, `data: ${changed}`));
    const result = await tiedlora("train", "--resume", "--steps", "4", "--out", join(folder, "data"));
    assert.equal(result.code, 1);
    assert.match(result.info, /the training examples are not those that the run in .* was started with/);
  });

  test("begins where there is no checkpoint yet, and clears what a crash left behind", async () => {
    const fresh = await run("fresh", "--resume", "--steps", "2");
    assert.equal(fresh.code, 0, fresh.info);
    assert.equal(steps(fresh).length, 2);
  });
});

suite("metrics", () => {
  test("are the same in JSON lines and CSV", () => {
    const [header, ...rows] = text("whole/logs/metrics.csv").trim().split("\n");
    const columns = header!.split(",");
    const table = rows.map((row) =>
      Object.fromEntries(
        row.split(",").flatMap((cell, i) => (cell === "" ? [] : [[columns[i]!, Number(cell)]])),
      ),
    );
    assert.deepEqual(table, lines("whole"));
    assert.deepEqual(Object.keys(lines("whole")[3]!), columns);
  });

  test("are in an event file that TensorBoard's format allows", () => {
    const files = readdirSync(join(folder, "whole/logs")).filter((name) =>
      name.startsWith("events.out.tfevents."),
    );
    const events = files.sort().flatMap((name) => readEvents(readFileSync(join(folder, "whole/logs", name))));
    assert.equal(events[0]!.version, "brain.Event:2");
    const scalars = events.filter((event) => event.scalars.size > 0);
    assert.deepEqual(
      scalars.map(({ step }) => step),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    for (const [i, line] of lines("whole").entries()) {
      const { scalars: found } = scalars[i]!;
      assert.equal(
        found.get("train/loss"),
        line["loss"] === undefined ? undefined : Math.fround(line["loss"]),
      );
      assert.equal(
        found.get("valid/loss"),
        line["valid_loss"] === undefined ? undefined : Math.fround(line["valid_loss"]),
      );
    }
    const again = events.filter((event) => event.start);
    assert.ok(
      again.every(({ step }) => step === 10),
      "a resumed run says from which step on it writes",
    );
  });

  test("CRC-32C is that of RFC 3720", () => {
    assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
    assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
    assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  });
});

interface Event {
  readonly time: number;
  readonly step: number;
  readonly version: string | null;
  readonly scalars: Map<string, number>;
  readonly start: boolean;
}

/** Reads an event file by its own rules, not with the writer's functions. */
function readEvents(file: Buffer): Event[] {
  const events: Event[] = [];
  const checked = (from: number, to: number): Buffer => {
    const bytes = file.subarray(from, to);
    const crc = slowCrc(bytes);
    const mask = (((crc >>> 15) | ((crc << 17) >>> 0)) + 0xa282ead8) % 2 ** 32;
    assert.equal(file.readUInt32LE(to), mask, `checksum of ${from} to ${to}`);
    return bytes;
  };
  for (let at = 0; at < file.length;) {
    const length = Number(checked(at, at + 8).readBigUInt64LE(0));
    events.push(readEvent(checked(at + 12, at + 12 + length)));
    at += 16 + length;
  }
  return events;
}

function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const odd = (crc ^ (byte >> bit)) & 1;
      crc = odd ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    }
  }
  return ~crc >>> 0;
}

type Fields = Map<number, (number | Buffer)[]>;

/** A protocol buffer's fields: numbers, or bytes. */
function fields(message: Buffer): Fields {
  const found: Fields = new Map();
  let at = 0;
  const varint = (): number => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = message[at++]!;
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    const read: Record<number, () => number | Buffer> = {
      0: varint,
      1: () => message.readDoubleLE((at += 8) - 8),
      2: () => {
        const length = varint();
        return message.subarray(at, (at += length));
      },
      5: () => message.readFloatLE((at += 4) - 4),
    };
    found.set(key >> 3, [...(found.get(key >> 3) ?? []), read[key & 7]!()]);
  }
  return found;
}

function readEvent(message: Buffer): Event {
  const event = fields(message);
  const [summary] = (event.get(5) ?? []) as Buffer[];
  const values = summary ? ((fields(summary).get(1) ?? []) as Buffer[]).map(fields) : [];
  const [session] = (event.get(7) ?? []) as Buffer[];
  return {
    time: event.get(1)![0] as number,
    step: (event.get(2)?.[0] as number | undefined) ?? 0,
    version: event.get(3)?.[0]?.toString() ?? null,
    scalars: new Map(values.map((value) => [String(value.get(1)![0]), value.get(2)![0] as number])),
    start: session !== undefined && fields(session).get(1)?.[0] === 1,
  };
}

suite("a directory that cannot be written", () => {
  test("is reported, and keeps what it has", async () => {
    await run("blocked", "--steps", "1");
    const before = [
      read("blocked/adapter_model.safetensors"),
      readdirSync(join(folder, "blocked/checkpoints")),
    ];
    rmSync(join(folder, "blocked/run.yaml"));
    mkdirSync(join(folder, "blocked/run.yaml/in-the-way"), { recursive: true }); // stops root too, unlike permissions
    const result = await run("blocked", "--steps", "2", "--restart");
    assert.equal(result.code, 1);
    assert.match(result.info, /error: .*run\.yaml/);
    assert.deepEqual(
      [read("blocked/adapter_model.safetensors"), readdirSync(join(folder, "blocked/checkpoints"))],
      before,
    );
    assert.deepEqual(
      readdirSync(join(folder, "blocked")).filter((name) => name.endsWith(".tmp")),
      [],
      "nothing is left behind",
    );
  });

  test("that is a file is said to be one", async () => {
    const result = await tiedlora("train", ...RUN, "--out", join(folder, "train.jsonl"));
    assert.equal(result.code, 2);
    assert.match(result.info, /train\.jsonl/);
    assert.ok(statSync(join(folder, "train.jsonl")).isFile(), "it is still there");
    assert.ok(!existsSync(join(folder, "train.jsonl/run.yaml")), "nothing was written");
  });
});
