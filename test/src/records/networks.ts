/** Records of the functions that networks are made of. */
import { checkpoint, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import fc from "fast-check";
import { F32, FLOATS, type InputSpec, type OpCase, type OpRecord } from "./record.ts";
import { shapes } from "./shapes.ts";

const spec = (shape: readonly number[], dtypes = F32): InputSpec => ({ shape, domain: "any", dtypes });
const upTo = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });

const seen = (shape: readonly number[]): InputSpec => ({ ...spec(shape), finite: true });

const attention: OpRecord = {
  name: "scaledDotProductAttention",
  gradient: "yes",
  cases: ({ limit }) => {
    const big = limit > 100;
    const gene = fc.record({
      batch: upTo(2),
      kvHeads: upTo(2),
      group: upTo(big ? 3 : 2),
      q: upTo(big ? 20 : 3),
      more: fc.nat({ max: big ? 5 : 2 }),
      d: upTo(big ? 17 : 3),
      causal: fc.boolean(),
      bias: fc.constantFrom("no", "full", "broadcast"),
      // squares the result, so that the incoming gradient is not constant and second derivatives pass through it too
      squared: fc.boolean(),
    });
    return gene.map((g): OpCase => {
      const [heads, kv] = [g.kvHeads * g.group, g.q + g.more];
      const inputs = [
        seen([g.batch, heads, g.q, g.d]),
        seen([g.batch, g.kvHeads, kv, g.d]),
        seen([g.batch, g.kvHeads, kv, g.d]),
      ];
      if (g.bias === "full") inputs.push(seen([g.batch, heads, g.q, kv]));
      if (g.bias === "broadcast") inputs.push(seen([1, 1, g.q, kv]));
      return {
        call: `scaledDotProductAttention(q, k, v, { causal: ${g.causal}, bias: ${g.bias} })${g.squared ? ".square()" : ""}`,
        inputs,
        build: ([q, k, v, bias]) => {
          const options = bias ? { causal: g.causal, bias } : { causal: g.causal };
          const y = nn.scaledDotProductAttention(q!, k!, v!, options);
          return g.squared ? y.square() : y;
        },
      };
    });
  },
};

const rope: OpRecord = {
  name: "rope",
  gradient: "yes",
  cases: () =>
    fc
      .record({ batch: upTo(2), t: upTo(4), half: upTo(2), rest: fc.nat({ max: 2 }) })
      .map(({ batch, t, half, rest }): OpCase => ({
        call: "rope(x, cos, sin)",
        inputs: [spec([batch, 2, t, 2 * half + rest]), spec([t, half]), spec([t, half])],
        build: ([x, cos, sin]) => nn.rope(x!, cos!, sin!),
      })),
};

const crossEntropy: OpRecord = {
  name: "crossEntropy",
  gradient: "yes",
  cases: ({ limit }) =>
    fc
      .tuple(
        shapes({ limit: Math.ceil(limit / 4), zeros: false, maxRank: 2 }),
        upTo(limit > 100 ? 70 : 4),
        fc.boolean(),
      )
      .map(([positions, classes, masked]): OpCase => ({
        call: `crossEntropy(logits, targets${masked ? ", { mask }" : ""})`,
        inputs: [
          spec([...positions, classes], FLOATS),
          { shape: positions, domain: [0, classes], dtypes: ["i32"] },
          // positive weights, since they must not all be 0
          ...(masked
            ? [{ shape: positions, domain: "positive" as const, dtypes: F32, fixed: true as const }]
            : []),
        ],
        build: ([logits, targets, mask]) => nn.crossEntropy(logits!, targets!, mask ? { mask } : {}),
      })),
};

const mse: OpRecord = {
  name: "mse",
  gradient: "yes",
  cases: ({ limit }) =>
    shapes({ limit, zeros: false }).map((shape) => ({
      call: "mse(x, y)",
      inputs: [spec(shape), spec(shape)],
      build: ([x, y]) => nn.mse(x!, y!),
    })),
};

const binaryCrossEntropy: OpRecord = {
  name: "binaryCrossEntropy",
  gradient: "yes",
  cases: ({ limit }) =>
    shapes({ limit, zeros: false }).map((shape) => ({
      call: "binaryCrossEntropy(x, t)",
      inputs: [spec(shape), { ...spec(shape), domain: "unit" }],
      build: ([x, t]) => nn.binaryCrossEntropy(x!, t!),
    })),
};

const checkpointed: OpRecord = {
  name: "checkpoint",
  gradient: "yes",
  cases: ({ limit }) =>
    shapes({ limit, zeros: false, minRank: 1 }).map((shape) => ({
      call: "checkpoint((a, b) => a.mul(b).tanh().mul(a), x, y)",
      inputs: [spec(shape), spec(shape)],
      build: ([x, y]) => checkpoint((a: Tensor, b: Tensor) => a.mul(b).tanh().mul(a), x!, y!.sin()),
    })),
};

export const NETWORKS: readonly OpRecord[] = [
  attention,
  rope,
  crossEntropy,
  binaryCrossEntropy,
  mse,
  checkpointed,
];
