import assert from "node:assert/strict";
import { suite, test } from "node:test";
import type { Tensor } from "@tiedlora/core";
import {
  adapt,
  adaptersOf,
  defineMethod,
  init,
  type Init,
  type Method,
  type MethodSpec,
} from "../src/index.ts";
import { IDS, tinyLlama } from "./support/tiny.ts";

type Formula = (factors: { A: Tensor; B: Tensor }, call: { x: Tensor; y: Tensor }) => unknown;

const PLACE = String.raw`of method "mine" at model\.layers\.0\.self_attn\.k_proj`;

/** A method of rank 2 at the key projection, [4, 8], that differs from LoRA in the given fields. */
function mine(spec: Record<string, unknown>, B: Init = init.zeros()): Method {
  return defineMethod({
    name: "mine",
    rank: 2,
    target: ["k_proj"],
    factors: { A: { shape: ["rank", "in"], init: init.normal() }, B: { shape: ["out", "rank"], init: B } },
    ...spec,
  } as unknown as MethodSpec<"A" | "B">);
}

/** The error when a model with the method runs. */
async function messageOf(method: Method): Promise<string> {
  const model = tinyLlama();
  try {
    await adapt(model, method);
    model.forward(IDS);
  } catch (error) {
    assert.ok(error instanceof TypeError || error instanceof RangeError, String(error));
    return error.message;
  }
  return "no error";
}

suite("a formula's result is checked, and its method and module are named", () => {
  const forwards: readonly (readonly [string, Formula, string])[] = [
    ["nothing", () => undefined, `forward ${PLACE} gave undefined \\(does it return`],
    ["a promise", async (_, { y }) => y, `forward ${PLACE} gave a promise \\(a formula builds a graph`],
    ["a number", () => 3, `forward ${PLACE} gave number; expected the module's output`],
    ["the pair of lowRank", ({ A, B }) => ({ A, B }), `forward ${PLACE} gave an object with A, B; expected`],
    [
      "less than y",
      (_, { y }) => y.sum(-1),
      String.raw`forward ${PLACE} gave a tensor of f32 and shape \[2, 5\]; expected f32 and \[2, 5, 4\]`,
    ],
    [
      "what broadcasts to y",
      ({ B }) => B.sum(1),
      String.raw`forward ${PLACE} gave a tensor of f32 and shape \[4\]; expected`,
    ],
    ["integers", (_, { y }) => y.cast("i32"), `forward ${PLACE} gave a tensor of i32; expected floats`],
    [
      "half precision",
      (_, { y }) => y.cast("f16"),
      `forward ${PLACE} gave a tensor of f16 and shape .*; expected f32`,
    ],
  ];
  for (const [name, forward, message] of forwards) {
    test(`forward: ${name}`, async () => {
      assert.match(await messageOf(mine({ forward })), new RegExp(message));
    });
  }

  const lowRanks: readonly (readonly [string, Formula, string])[] = [
    ["nothing", () => undefined, `lowRank ${PLACE} gave undefined.*expected \\{ A, B \\}`],
    [
      "one tensor",
      ({ A, B }) => B.matmul(A),
      String.raw`lowRank ${PLACE} gave a tensor of shape \[4, 8\]; expected \{ A, B \}`,
    ],
    ["a promise", async (factors) => factors, `lowRank ${PLACE} gave a promise`],
    ["A alone", ({ A }) => ({ A, B: undefined }), `lowRank ${PLACE} gave undefined.*expected a tensor as B`],
    [
      "transposed factors",
      ({ A, B }) => ({ A: A.transpose(), B: B.transpose() }),
      String.raw`lowRank ${PLACE} gave A of shape \[8, 2\] and B of shape \[2, 4\]; expected \[rank, 8\] and \[4, rank\]`,
    ],
    [
      "ranks that differ",
      ({ A, B }) => ({ A: A.narrow(0, 0, 1), B }),
      String.raw`lowRank ${PLACE} gave A of shape \[1, 8\] and B of shape \[4, 2\]`,
    ],
  ];
  for (const [name, lowRank, message] of lowRanks) {
    test(`lowRank: ${name}`, async () => {
      assert.match(await messageOf(mine({ lowRank })), new RegExp(message));
    });
  }

  test("lowRank, when it is merged or saved", async () => {
    const model = tinyLlama();
    let right = true;
    const method = mine({
      lowRank: ({ A, B }: { A: Tensor; B: Tensor }) => ({ A, B: right ? B : B.transpose() }),
    });
    await adapt(model, method);
    right = false;
    await assert.rejects(adaptersOf(model).merge(), {
      message: new RegExp(`lowRank ${PLACE} gave A of shape`),
    });
  });
});

suite("start values are checked, and their method and module are named", () => {
  const lowRank: Formula = ({ A, B }) => ({ A, B });
  const start = (fill: () => unknown): Init => ({ zero: true, label: "mine", fill: fill as Init["fill"] });

  test("of an init", async () => {
    const short = mine(
      { lowRank },
      start(() => new Float32Array(3)),
    );
    assert.match(
      await messageOf(short),
      new RegExp(`init of method "mine" at .*k_proj.* gave 3 values for factor B of shape \\[4, 2\\]`),
    );
    assert.match(
      await messageOf(
        mine(
          { lowRank },
          start(() => undefined),
        ),
      ),
      /gave undefined.*for factor B/,
    );
  });

  test("of prepare", async () => {
    const prepared = (values: unknown): Method => mine({ lowRank, prepare: () => Promise.resolve(values) });
    assert.match(await messageOf(prepared(undefined)), new RegExp(`prepare ${PLACE} gave undefined`));
    assert.match(
      await messageOf(prepared({ A: new Float32Array(2) })),
      new RegExp(`prepare ${PLACE} gave 2 values for factor A of shape \\[2, 8\\]`),
    );
    assert.match(await messageOf(prepared({ A: [1, 2] })), /gave an array for factor A/);
    assert.equal(await messageOf(prepared({ A: new Float32Array(16), B: undefined })), "no error");
  });
});
