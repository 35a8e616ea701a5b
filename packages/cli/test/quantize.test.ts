/** --quantize: the commands compute with quantized weights, and say so; merging says into which weights. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { QUANTIZE_KINDS, type QuantizeKind } from "@tiedlora/models";
import { loadConfig } from "@tiedlora/models/node";
import { expandSweep, parseSweep, runId } from "@tiedlora/experiments";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const model = join(folder, "model");
const data = join(folder, "train.jsonl");
const adapter = (kind: string): string => join(folder, `adapter-${kind}`);

/** What training says of the weights. */
const SAID: Readonly<Record<QuantizeKind, RegExp>> = {
  nf4: /quantized matrices: 12 in nf4, 0\.\d MiB; 4 others are not/,
  int8: /quantized matrices: 12 in 8 bits, 0\.\d MiB; 4 others are not/,
  "nf4+int8": /quantized matrices: 2 in 8 bits, 12 in nf4, 0\.\d MiB; 2 others are not/,
};

suite("--quantize", () => {
  before(async () => {
    await writeModel(model, { hidden_size: 64, intermediate_size: 44 });
    writeExamples(data);
    for (const kind of QUANTIZE_KINDS) {
      const flags = ["--steps", "3", "--batch", "2", "--rank", "2", "--seq", "24", "--out", adapter(kind)];
      const { code, info } = await tiedlora("train", "--model", model, "--data", data, "--quantize", kind, ...flags); // prettier-ignore
      assert.equal(code, 0, info);
      // Of seven matrices in each layer, the one with 44 inputs stays as it is, as do the embedding and the head but in nf4+int8.
      assert.match(info, SAID[kind]);
      assert.match(info, /try it: tiedlora generate --model \S+ --adapter/);
    }
  });

  test("the run's settings and the adapter say it; evaluation follows the quantized weights", async () => {
    const loss = async (...flags: string[]): Promise<number> => {
      const { code, out, info } = await tiedlora("eval", "--model", model, "--data", data, "--seq", "24", "--json", ...flags); // prettier-ignore
      assert.equal(code, 0, info);
      return (JSON.parse(out) as { loss: number }).loss;
    };
    const plain = await loss();
    const quantized = new Set<number>();
    for (const kind of QUANTIZE_KINDS) {
      assert.match(
        readFileSync(join(adapter(kind), "run.yaml"), "utf8"),
        new RegExp(`^quantize: ${kind.replace("+", "\\+")}$`, "m"),
      );
      const one = await loss("--quantize", kind);
      assert.ok(one !== plain && Math.abs(one - plain) < 0.5, `${kind}: ${one}, and ${plain} unquantized`);
      quantized.add(one);
      const trained = await loss("--quantize", kind, "--adapter", adapter(kind));
      assert.ok(trained < one);
      assert.equal(await loss("--adapter", adapter(kind)), trained, "without the flag, as in training");
      assert.notEqual(await loss("--quantize", "none", "--adapter", adapter(kind)), trained);
    }
    assert.equal(quantized.size, QUANTIZE_KINDS.length);
  });

  test("the flag is not needed with an adapter: its file says how it was trained, and each command says what it does", async () => {
    const question = ["--model", model, "--adapter", adapter("nf4"), "--prompt", "a", "--max-tokens", "1"];
    const said = async (...flags: string[]): Promise<string> => {
      const { code, info } = await tiedlora(...flags);
      assert.equal(code, 0, info);
      return info;
    };
    assert.match(
      await said("generate", ...question),
      /trained on weights quantized to nf4, so these are quantized, too/,
    );
    assert.doesNotMatch(await said("generate", ...question, "--quantize", "nf4"), /quantized/);
    assert.match(
      await said("generate", ...question, "--quantize", "none"),
      /to nf4; these are not quantized/,
    );
    assert.match(
      await said("generate", ...question, "--quantize", "int8"),
      /to nf4; these are quantized to int8/,
    );
    const more = ["--model", model, "--data", data, "--init-from", adapter("nf4"), "--steps", "1", "--batch", "2", "--seq", "24"]; // prettier-ignore
    const again = await said("train", ...more, "--out", join(folder, "again"));
    assert.match(again, /so these are quantized, too.*quantized matrices: 12 in nf4/s);
    assert.match(readFileSync(join(folder, "again", "run.yaml"), "utf8"), /^quantize: nf4$/m);
    const exported = ["--model", model, "--adapter", adapter("nf4"), "--out"];
    assert.match(await said("export", ...exported, join(folder, "peft"), "--format", "peft-lora"), /quantized to nf4, of which peft-lora has no record/); // prettier-ignore
    assert.doesNotMatch(
      await said("export", ...exported, join(folder, "native"), "--format", "native"),
      /note/,
    );
    const copy = [
      "--model",
      model,
      "--adapter",
      join(folder, "native"),
      "--prompt",
      "a",
      "--max-tokens",
      "1",
    ];
    assert.match(await said("generate", ...copy), /so these are quantized, too/);
  });

  test("merging takes the unquantized weights, and says so", async () => {
    const out = join(folder, "merged");
    const { code, info } = await tiedlora(
      "merge",
      "--model",
      model,
      "--adapter",
      adapter("nf4"),
      "--out",
      out,
    );
    assert.equal(code, 0, info);
    assert.match(info, /trained on weights quantized to nf4: it is merged into the unquantized weights of /);
    assert.equal((await loadConfig(out)).hidden, 64);
    const refused = await tiedlora("merge", "--model", model, "--quantize", "nf4", "--adapter", adapter("nf4"), "--out", out); // prettier-ignore
    assert.equal(refused.code, 2);
  });

  test("other forms are refused", async () => {
    const { code, info } = await tiedlora("eval", "--model", model, "--data", data, "--quantize", "int4");
    assert.equal(code, 2);
    assert.match(info, /--quantize.*nf4, int8|nf4.*int8/s);
  });

  test("in a sweep it is part of a run's description; without it, ids are what they were", () => {
    const yaml = (line: string): string =>
      `out: runs\non:\n  tasks: [choice]\n${line}vary:\n  method: [tl6]\n  rank: [2]\n`;
    const runs = (line: string): ReturnType<typeof expandSweep> =>
      expandSweep(parseSweep(yaml(line), "sweep.yaml"));
    const [plain, quantized] = [runs(""), runs("  quantize: nf4\n")];
    assert.ok(plain.every((run) => !("quantize" in run)));
    assert.ok(quantized.every((run) => run.quantize === "nf4"));
    assert.notEqual(runId(plain[0]!), runId(quantized[0]!));
    assert.throws(() => runs("  quantize: nf3\n"), /line 4.*quantize/s);
  });
});
