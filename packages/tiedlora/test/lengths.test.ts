/** Training steps of many lengths: few of them are planned, and the plans of all others are made of theirs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Device } from "@tiedlora/core";
import { decoderStep, STORIES } from "../../../bench/decoder.ts";
import { idleBackend } from "../../../bench/idle.ts";

/** Has all library kernels, and computes nothing. */
const backend = Object.assign(idleBackend(), { accelerates: () => true });

test("of 64 lengths, whatever they are multiples of or coincide with, three are planned", () => {
  const device = new Device(backend);
  const step = decoderStep(device, { ...STORIES, layers: 2 });
  for (let i = 0; i < 64; i++) step(65 + ((37 * i) % 64), 0);
  // three make a family; 96 and 128 are also widths of the model
  assert.deepEqual(device.families.counts, { planned: 3, made: 61 });
});
