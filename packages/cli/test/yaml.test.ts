/** YAML of runs and sweeps: errors name the file and the line, and a short file cannot expand to endless data. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "node:test";
import { readSettings } from "../src/settings.ts";
import { TRAIN_SETTINGS } from "../src/train-settings.ts";
import { parseSweep } from "../../experiments/src/sweep/spec.ts";
import { readYaml, YamlError } from "../../experiments/src/yaml.ts";
import { temporary } from "./support/model-directory.ts";

const LAUGHS = Array.from({ length: 9 }, (_, i) => {
  return `l${i}: &l${i} [${Array(9).fill(i === 0 ? "lol" : `*l${i - 1}`).join(", ")}]`; // prettier-ignore
}).join("\n");

/** The mistake, its line, and the error message. */
const WRONG: readonly (readonly [what: string, text: string, line: number, message: RegExp])[] = [
  ["an alias that stands for nothing", "steps: 3\nrank: *x\n", 2, /\*x stands for nothing/],
  ["a list that contains itself", "steps: 3\nrank: &x [*x]\n", 2, /contains itself/],
  ["a map that contains itself", "rank: &x { a: *x }\n", 1, /contains itself/],
  ["the billion laughs", `steps: 3\n${LAUGHS}\n`, 7, /more than 100000 values/],
  ["brackets in brackets", `rank: ${"[".repeat(60_000)}`, 1, /nested deeper than 64/],
  ["lists in lists", `rank:\n  ${"- ".repeat(30_000)}`, 2, /nested deeper than 64/],
  ["lines that step ever further in", Array.from({ length: 70 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"), 65, /nested deeper/],
  ["a key that comes twice", "rank: 3\nsteps: 2\nrank: 4\n", 3, /the key "rank" twice/],
  ["a type that is not known", "rank: !!binary aGk=\n", 1, /Unresolved tag|not supported/],
  ["a key that is no text", "? [a]\n: 3\n", 1, /a key that is no plain text/],
]; // prettier-ignore

suite("wrong YAML is an error with file and line, in a run's file and in a sweep's", () => {
  const folder = temporary();
  for (const [what, text, line, message] of WRONG) {
    const check = (error: unknown): boolean => {
      assert.ok(error instanceof YamlError, String(error));
      assert.match(error.message, message);
      assert.equal(error.line, line);
      assert.equal(error.place, `line ${line}`);
      return true;
    };
    test(what, { timeout: 10_000 }, async () => {
      const file = join(folder, "run.yaml");
      writeFileSync(file, text);
      await assert.rejects(readSettings(TRAIN_SETTINGS, file), check);
      assert.throws(() => parseSweep(text, "sweep.yaml"), check);
    });
  }
});

test("an alias stands for the value before it that has its name", () => {
  const { document, plain } = readYaml("a: &x [1, two]\nb: { c: *x }\nd: &x 3\ne: [*x, *x]\n", "f");
  assert.deepEqual(plain(document.contents), { a: [1, "two"], b: { c: [1, "two"] }, d: 3, e: [3, 3] });
});

test("a sweep of more runs than anybody could wait for is refused", () => {
  const many = `[${Array.from({ length: 400 }, (_, i) => i + 1).join(", ")}]`;
  const text = `on: { tasks: choice }\nout: x\nvary: { method: lora, rank: ${many}, seed: ${many} }\n`;
  assert.throws(() => parseSweep(text, "s.yaml"), /vary have 160000 combinations; expected at most 100000/);
});

test("a learning rate that f32 rounds to 0 is refused where it is given", async () => {
  const file = join(temporary(), "run.yaml");
  for (const lr of ["1e-320", "0", ".nan", ".inf", "-1"]) {
    writeFileSync(file, `rank: 2\nlr: ${lr}\n`);
    await assert.rejects(readSettings(TRAIN_SETTINGS, file), /run\.yaml, line 2: lr is .*; expected a number above 0/); // prettier-ignore
  }
});
