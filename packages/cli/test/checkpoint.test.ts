/** A run resumes from a checkpoint only if it is as it was written, and otherwise from the one before, with a note. */
import assert from "node:assert/strict";
import { cpSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import * as optim from "@tiedlora/nn/optim";
import { adapt, DivergedError, methods } from "tiedlora";
import { damageOf, restoreCheckpoint, saveCheckpoint } from "../../tiedlora/src/node/checkpoint.ts";
import { edit, sign } from "./support/checkpoints.ts";
import { type Result, tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";
import { filesIn } from "./support/outputs.ts";
import { lossOf, tinyLlama } from "../../tiedlora/test/support/tiny.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);
await writeModel(at("model"));
writeExamples(at("train.jsonl"));

const FLAGS = [
  ...`--model ${at("model")} --data ${at("train.jsonl")} --valid ${at("train.jsonl")}`.split(" "),
  ..."--batch 2 --seq 32 --rank 2 --lr 0.02 --schedule constant --warmup 1 --backend reference".split(" "),
  ..."--save-every 2 --eval-every 2".split(" "),
];
const train = (out: string, ...more: string[]): Promise<Result> =>
  tiedlora("train", ...FLAGS, "--out", out, ...more);

const straight = await train(at("straight"), "--steps", "6");
assert.equal(straight.code, 0, straight.info);
const cut = await train(at("cut"), "--steps", "4");
assert.equal(cut.code, 0, cut.info);

let copies = 0;
/** A copy of the run that was ended after four steps; it has checkpoints of steps 2 and 4. */
function copy(): string {
  const to = at(`copy-${copies++}`);
  cpSync(at("cut"), to, { recursive: true });
  return to;
}
const LAST = "checkpoints/step-00000004";
const BEFORE = "checkpoints/step-00000002";

/** Resumes up to step 6, and returns the messages; the result must be that of the uninterrupted run. */
async function goesOn(out: string): Promise<string> {
  const { code, info } = await train(out, "--resume", "--steps", "6");
  assert.equal(code, 0, info);
  const bits = (directory: string): Buffer =>
    readFileSync(join(directory, "checkpoints/step-00000006/optimizer.safetensors"));
  assert.ok(bits(out).equals(bits(at("straight"))), "the same bits");
  return info;
}

async function refused(out: string, ...more: string[]): Promise<string> {
  const before = filesIn(out);
  const { code, info } = await train(out, "--resume", "--steps", "6", ...more);
  assert.notEqual(code, 0, info);
  assert.deepEqual(filesIn(out), before, "nothing was changed");
  return info;
}

suite("a checkpoint that is damaged", () => {
  const files = readdirSync(at("cut", LAST));

  test("is seen to be, whatever was done to which file", async () => {
    assert.deepEqual(files, [
      "SHA256SUMS", "adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "state.json",
    ]); // prettier-ignore
    const damages: Readonly<Record<string, (path: string, name: string) => void>> = {
      gone: (path) => rmSync(path),
      empty: (path) => writeFileSync(path, ""),
      "cut off": (path) => truncateSync(path, readFileSync(path).byteLength - 1),
      "a bit flipped": (path) => {
        const bytes = readFileSync(path);
        bytes[bytes.length >> 1]! ^= 1;
        writeFileSync(path, bytes);
      },
      "that of another step": (path, name) => cpSync(at("cut", BEFORE, name), path),
    };
    const same = (name: string): boolean => readFileSync(at("cut", LAST, name)).equals(readFileSync(at("cut", BEFORE, name))); // prettier-ignore
    for (const [what, damage] of Object.entries(damages)) {
      for (const name of files) {
        if (what === "that of another step" && same(name)) continue;
        const out = copy();
        damage(join(out, LAST, name), name);
        const found = await damageOf(join(out, "checkpoints"), 4);
        assert.match(found ?? "nothing", new RegExp(name === "SHA256SUMS" ? "SHA256SUMS|digest" : name), `${name} ${what}`); // prettier-ignore
      }
    }
    assert.equal(await damageOf(at("cut/checkpoints"), 4), null);
  });

  test("is passed over for the one before it, which is said, and the run ends with the same bits", async () => {
    const out = copy();
    truncateSync(join(out, LAST, "optimizer.safetensors"), 100);
    const info = await goesOn(out);
    assert.match(
      info,
      /note: step-00000004 is damaged \(optimizer\.safetensors has changed since it was written: .*\): going back to step-00000002\n.*going on after step 2 of 6/,
    );
    assert.deepEqual(await damageOf(join(out, "checkpoints"), 4), null, "it was written again");
  });

  test("that held the best step is missed, and the best is looked for anew", async () => {
    const out = copy();
    edit(join(out, LAST), "state.json", (text) => text.replace(/"best": \{[^}]*\}/, '"best": { "step": 2, "loss": 0.001 }')); // prettier-ignore
    rmSync(join(out, BEFORE, "state.json"));
    const { code, info } = await train(out, "--resume", "--steps", "6");
    assert.equal(code, 0, info);
    assert.match(info, /step-00000002, the best step so far .*, is damaged .*: the best step is looked for anew after step 4/); // prettier-ignore
    assert.match(info, /the best step is 6,/);
  });

  test("without a whole one before it is an error that names all, and --restart begins anew", async () => {
    const out = copy();
    rmSync(join(out, LAST, "state.json"));
    writeFileSync(join(out, BEFORE, "SHA256SUMS"), "x");
    const info = await refused(out);
    assert.match(info, /no checkpoint that is whole: step-00000004 is damaged \(state\.json is missing\); step-00000002 is damaged .*--restart/); // prettier-ignore
    const without = await train(out, "--steps", "6");
    assert.equal(without.code, 1);
    assert.match(without.info, /a run with damaged checkpoints is in there; throw it away by --restart/);
    const again = await train(out, "--steps", "6", "--restart");
    assert.equal(again.code, 0, again.info);
    assert.deepEqual(
      Object.keys(filesIn(out)).filter((name) => !name.includes("tfevents")),
      Object.keys(filesIn(at("straight"))).filter((name) => !name.includes("tfevents")),
    );
  });
});

suite("an optimizer's state that digests cannot find wrong", () => {
  /** The optimizer's file with its header changed; tensors that are dropped lose their data too. */
  function change(out: string, alter: (header: Record<string, Entry>) => void): void {
    const path = join(out, LAST, "optimizer.safetensors");
    const file = readFileSync(path);
    const end = 8 + Number(file.readBigUInt64LE(0));
    const header = JSON.parse(file.subarray(8, end).toString()) as Record<string, Entry>;
    const data = new Map(Object.entries(header).flatMap(([name, { data_offsets: at }]) => (at ? [[name, file.subarray(end + at[0], end + at[1])]] : []))); // prettier-ignore
    alter(header);
    let offset = 0;
    const parts: Buffer[] = [];
    for (const [name, entry] of Object.entries(header)) {
      if (entry.data_offsets === undefined) continue;
      const bytes = entry.values === undefined ? data.get(name)! : Buffer.from(entry.values.buffer);
      delete entry.values;
      entry.data_offsets = [offset, (offset += bytes.byteLength)];
      parts.push(bytes);
    }
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.byteLength));
    writeFileSync(path, Buffer.concat([length, text, ...parts]));
    sign(join(out, LAST));
  }
  interface Entry {
    data_offsets?: [number, number];
    shape?: number[];
    step?: string;
    values?: Float32Array;
  }
  const some = (header: Record<string, Entry>): string =>
    Object.keys(header).find((name) => name.startsWith("m."))!;

  for (const [what, alter, message] of [
    [
      "with a NaN",
      (h) => (h[some(h)]!.values = new Float32Array(h[some(h)]!.shape!.reduce((a, b) => a * b, 1)).fill(NaN)),
      /"m\.\d+": found values that are not finite/,
    ],
    [
      "without the second moments",
      (h) =>
        Object.keys(h)
          .filter((name) => name.startsWith("v."))
          .forEach((name) => delete h[name]),
      /lacks v|nothing of|not whole/,
    ],
    [
      "without anything of one parameter",
      (h) =>
        Object.keys(h)
          .filter((name) => name.endsWith(some(h).slice(1)))
          .forEach((name) => delete h[name]),
      /nothing of model\.layers\.0\.self_attn\.\w+\.\w/,
    ],
    [
      "of another step",
      (h) => (h["__metadata__"]!.step = "2"),
      /the optimizer's state after step 2.*that after step 4/,
    ],
  ] as readonly [string, (header: Record<string, Entry>) => void, RegExp][])
    // prettier-ignore
    test(`${what} is refused`, async () => {
      const out = copy();
      change(out, alter);
      assert.match(await refused(out), message);
    });

  test("leaves adapter and optimizer as they were", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.tl6({ rank: 2 }));
    const optimizer = optim.adamW(adapter.parameters(), { lr: 0.1 });
    optimizer.step(lossOf(model));
    const out = at("unchanged");
    const directory = join(out, "checkpoints");
    const state = { step: 1, tokens: 1, best: null, sinceBest: 0, finished: false, data: "" };
    await saveCheckpoint(directory, { adapter, optimizer }, state, {});
    const path = join(directory, "step-00000001", "optimizer.safetensors");
    writeFileSync(path, readFileSync(path, "latin1").replace('"step":"1"', '"step":"2"'), "latin1");
    optimizer.step(lossOf(model));
    const valuesNow = (): Promise<unknown> =>
      Promise.all([...adapter.parameters().map((parameter) => parameter.data()), optimizer.state()]);
    const before = await valuesNow();
    await assert.rejects(
      restoreCheckpoint(directory, 1, { adapter, optimizer }),
      /after step 2.*that after step 1/,
    );
    assert.deepEqual(await valuesNow(), before);
    model.device.close();
  });

  test("is not written in the first place: a number that is not finite ends the run", async () => {
    const model = tinyLlama();
    const adapter = adapt(model, methods.tl6({ rank: 2 }));
    const optimizer = optim.adamW(adapter.parameters(), { lr: 0.1 });
    optimizer.step(lossOf(model));
    const state = { step: 1, tokens: 1, best: null, sinceBest: 0, finished: false, data: "" };
    const directory = at("finite");
    await saveCheckpoint(directory, { adapter, optimizer }, state, {});
    const [first] = adapter.trainableParameters();
    first!.set(new Float32Array(first!.size).fill(Infinity));
    const next = { ...state, step: 2 };
    await assert.rejects(saveCheckpoint(directory, { adapter, optimizer }, next, {}), (error) => {
      assert.ok(error instanceof DivergedError && error.step === 2);
      assert.match(error.message, /after step 2 not all values of model\.layers\.0\.\S+ are finite: try a lower learning rate/); // prettier-ignore
      return true;
    });
    assert.deepEqual(readdirSync(directory), ["step-00000001"]);
    await restoreCheckpoint(directory, 1, { adapter, optimizer });
    assert.ok((await first!.data()).every(Number.isFinite));
    model.device.close();
  });
});

test("with --ema the averages are evaluated and saved, and a resumed run has the same bits", async () => {
  const ema = ["--ema", "0.6"];
  const whole = await train(at("ema"), "--steps", "6", ...ema);
  assert.equal(whole.code, 0, whole.info);
  assert.equal((await train(at("ema-cut"), "--steps", "4", ...ema)).code, 0);
  assert.equal((await train(at("ema-cut"), "--resume", "--steps", "6")).code, 0);
  for (const file of ["optimizer", "training", "adapter_model"].map(
    (name) => `checkpoints/step-00000006/${name}.safetensors`,
  ))
    // prettier-ignore
    assert.ok(readFileSync(at("ema", file)).equals(readFileSync(at("ema-cut", file))), file);
  const logged = (out: string, key: string): unknown[] =>
    readFileSync(at(out, "logs/metrics.jsonl"), "utf8").trim().split("\n").map((line) => (JSON.parse(line) as Record<string, unknown>)[key]); // prettier-ignore
  assert.deepEqual(logged("ema", "loss"), logged("straight", "loss"), "training itself is as without");
  assert.notDeepEqual(logged("ema", "valid_loss"), logged("straight", "valid_loss"));
  const loss = async (adapter: string): Promise<number> => {
    const flags = ["--model", at("model"), "--data", at("train.jsonl"), "--batch", "2", "--seq", "32", "--backend", "reference"]; // prettier-ignore
    return (JSON.parse((await tiedlora("eval", "--adapter", adapter, ...flags, "--json")).out) as { loss: number }).loss; // prettier-ignore
  };
  assert.equal(await loss(at("ema")), Math.min(...(logged("ema", "valid_loss").slice(1).filter(Boolean) as number[]))); // prettier-ignore
  const settings = readFileSync(at("ema-cut/run.yaml"), "utf8");
  writeFileSync(at("ema-cut/run.yaml"), settings.replace("ema: 0.6\n", ""));
  assert.match(await refused(at("ema-cut")), /found moving averages of the weights; expected none/);
});

suite("a run.yaml", () => {
  const text = readFileSync(at("cut/run.yaml"), "utf8");

  test("that is cut off at any point is refused, with nothing changed, and --restart writes it anew", async () => {
    const out = copy();
    for (let length = 0; length < text.length; length += Math.ceil(text.length / 12)) {
      writeFileSync(join(out, "run.yaml"), text.slice(0, length));
      assert.match(await refused(out), /run\.yaml is cut off: its last line, ".*", is missing/);
    }
    writeFileSync(join(out, "run.yaml"), text.slice(0, -1));
    assert.match(await refused(out), /is cut off/);
    const config = await tiedlora("train", "--config", join(out, "run.yaml"), "--out", at("elsewhere"));
    assert.deepEqual([config.code, /run\.yaml is cut off: its last line is missing/.test(config.info)], [2, true]); // prettier-ignore
    const again = await train(out, "--steps", "4", "--restart");
    assert.equal(again.code, 0, again.info);
    assert.equal(readFileSync(join(out, "run.yaml"), "utf8"), text.replaceAll(at("cut"), out));
  });

  test("that was written by hand is not written over, nor taken for a run's", async () => {
    const out = at("by-hand");
    const model = tiedlora("init", join(out, "run.yaml"));
    assert.equal((await model).code, 0);
    const own = filesIn(out);
    for (const how of [[], ["--restart"], ["--resume"]]) {
      const { code, info } = await train(out, "--steps", "1", "--config", join(out, "run.yaml"), ...how);
      assert.notEqual(code, 0);
      assert.match(info, /run\.yaml.* not written by a run/);
      assert.deepEqual(filesIn(out), own);
    }
  });

  test("remembers what was changed when the run went on", async () => {
    const out = copy();
    await goesOn(out);
    assert.match(readFileSync(join(out, "run.yaml"), "utf8"), /^steps: 6$/m);
    const again = await tiedlora("train", "--resume", "--out", out);
    assert.deepEqual([again.code, /going on after step 6 of 6/.test(again.info)], [0, true], again.info);
  });
});
