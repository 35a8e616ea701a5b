/**
 * Conditions are not short-circuited: SwiftShader, Chromium's software adapter, needs time and memory exponential in the
 * number of && and || to compile a loop, and the device is lost.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  attentionPrograms,
  indexPrograms,
  type Limits,
  loopPrograms,
  matmulPrograms,
  type ProgramCase,
  property,
} from "../../../test/src/index.ts";
import { lowerProgram } from "../src/codegen/lower.ts";
import type { Target } from "../src/codegen/target.ts";
import { CARD, DEFAULT_LIMITS, SOFTWARE } from "./support/dry.ts";

const DTYPES = new Set(["f32", "f16", "bf16", "i32", "u32", "bool"] as const);

const TARGETS: { readonly [name: string]: Target } = {
  "the default limits": DEFAULT_LIMITS,
  "a software adapter": SOFTWARE,
  "a graphics card": CARD,
};
const PROGRAMS = {
  "loop kernels": loopPrograms,
  matmul: matmulPrograms,
  attention: attentionPrograms,
  "gather and scatterAdd": indexPrograms,
};

/** Matches a condition of two tests. A kernel without one does not show how conditions are combined. */
const COMBINED = /\) & \(/;

for (const [what, programs] of Object.entries(PROGRAMS)) {
  for (const [name, target] of Object.entries(TARGETS)) {
    test(`${what} on ${name}`, async () => {
      const limits: Limits = { dtypes: DTYPES, maxOperands: target.maxBindings, elements: 5000 };
      let combined = 0;
      const check = ({ program }: ProgramCase): void => {
        for (const { label, code } of lowerProgram(program, target).kernels) {
          assert.doesNotMatch(code, /&&|\|\|/, label);
          combined += Number(COMBINED.test(code));
        }
      };
      await property(programs(limits), check, { runs: 100 });
      assert.ok(combined > 0, "no kernel has a condition of two tests");
    });
  }
}
