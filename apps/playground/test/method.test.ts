/** Presets and names of the page. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LEARNING_RATES } from "tiedlora";
import {
  hasSwitches,
  labelsOf,
  methodOf,
  PRESET_NAMES,
  presetChoice,
  presetOf,
  rateOf,
  trainsSomething,
} from "../src/method.ts";
import type { RunChoice } from "../src/protocol.ts";

test("a preset is the library's method of that name, with its learning rate", () => {
  for (const name of PRESET_NAMES) {
    const choice = presetChoice(name, 4);
    assert.equal(methodOf(choice).name, name);
    assert.equal(rateOf(choice), LEARNING_RATES[name]);
    assert.equal(trainsSomething(choice), true);
  }
});

test("the switches of a preset are the first method of the library that trains and shares the same", () => {
  const switched = PRESET_NAMES.map((name) => presetChoice(name, 4)).filter(hasSwitches);
  assert.deepEqual(
    switched.map(({ preset, trained, tie }) => [preset, presetOf(trained, tie)]),
    ["lora", "vera", "tl1", "tl2", "tl3", "tl4", "tl5", "tl6", "tied-gates", "rslora", "lora-fa"].map(
      (name) => [name, name === "rslora" ? "lora" : name],
    ),
  );
  assert.equal(presetOf(["B"], "pairs"), "own");
});

test("methods side by side have names of their own", () => {
  const run = (id: number, preset: (typeof PRESET_NAMES)[number], lr: number): RunChoice => ({
    id,
    method: presetChoice(preset, 8),
    lr,
  });
  const names = (...runs: RunChoice[]): string[] => [...labelsOf(runs).values()];
  assert.deepEqual(names(run(0, "tl6", 0.03), run(1, "lora", 0.01)), ["TL6 · rank 8", "LoRA · rank 8"]);
  assert.deepEqual(names(run(0, "tl6", 0.03), run(1, "tl6", 0.01)), [
    "TL6 · rank 8 · rate 0.03",
    "TL6 · rank 8 · rate 0.01",
  ]);
  assert.deepEqual(names(run(0, "tl6", 0.03), run(3, "tl6", 0.03)), [
    "TL6 · rank 8 · rate 0.03 (method 1)",
    "TL6 · rank 8 · rate 0.03 (method 2)",
  ]);
});
