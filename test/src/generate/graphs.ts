/**
 * Random graphs of tensor operations. Genes (plain numbers) are decoded against the tensors made so far, so that each
 * step fits the shapes of its operands, and the same graph can be built on any device. Each step is also recorded as text.
 */
import { concat, type Device, type DType, grad, iota, Parameter, type Tensor, where } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import fc from "fast-check";
import { tensorOf } from "../forward.ts";
import { sample } from "../records/record.ts";
import { axis } from "../records/shapes.ts";
import { choice, within } from "./dims.ts";
import { permutation } from "./views.ts";

interface LeafGene {
  readonly shape: readonly number[];
  readonly dtype: number;
  readonly seed: number;
}

interface StepGene {
  readonly op: number;
  readonly a: number;
  readonly b: number;
  readonly n: number;
  readonly m: number;
}

/** A random graph as plain data, which fast-check can shrink. */
export interface GraphGene {
  readonly leaves: readonly LeafGene[];
  readonly steps: readonly StepGene[];
  /** How many of the last tensors are read. */
  readonly outputs: number;
  /** Whether gradients of the last float tensor are read. */
  readonly gradient: boolean;
  /** Whether a parameter that the graph may use is updated: 0 no, 1 by SGD, 2 by AdamW. */
  readonly update: number;
}

const stepGene: fc.Arbitrary<StepGene> = fc.record({
  op: fc.nat({ max: 9999 }),
  a: choice,
  b: choice,
  n: choice,
  m: choice,
});

/** Graphs whose tensors have at most `limit` elements. */
export function graphs(limit: number): fc.Arbitrary<GraphGene> {
  const shape = fc.array(axis(limit, false), { maxLength: 3 }).map((dims) => within(dims, limit));
  const leaf = fc.record({ shape, dtype: choice, seed: fc.nat({ max: 1e6 }) });
  return fc.record({
    leaves: fc.array(leaf, { minLength: 1, maxLength: 3 }),
    steps: fc.array(stepGene, { minLength: 1, maxLength: 22, size: "max" }),
    outputs: fc.integer({ min: 1, max: 3 }),
    gradient: fc.boolean(),
    update: fc.nat({ max: 2 }),
  });
}

/** The tensors made so far, and the steps that made them, as text. */
class GraphBuilder {
  readonly tensors: Tensor[] = [];
  readonly lines: string[] = [];
  readonly limit: number;
  /** The types that a tensor may have. */
  readonly dtypes: ReadonlySet<DType>;

  constructor(limit: number, dtypes: ReadonlySet<DType>) {
    this.limit = limit;
    this.dtypes = dtypes;
  }

  /** A tensor with its name; `n` counts from the newest. */
  pick(n: number): { x: Tensor; name: string } {
    const at = this.tensors.length - 1 - (n % this.tensors.length);
    return { x: this.tensors[at]!, name: `t${at}` };
  }

  add(tensor: Tensor, text: string): void {
    if (tensor.size > this.limit) return;
    this.lines.push(`t${this.tensors.length} = ${text}   // ${tensor.dtype} [${tensor.shape.join(", ")}]`);
    this.tensors.push(tensor);
  }
}

type Maker = (g: GraphBuilder, gene: StepGene) => void;

const pickOf = <T>(n: number, list: readonly T[]): T => list[n % list.length]!;
const isFloat = (x: Tensor): boolean => x.dtype === "f32" || x.dtype === "f16" || x.dtype === "bf16";

/** A float tensor made of `x`. */
const asFloat = (x: Tensor): Tensor => (isFloat(x) ? x : x.cast("f32").mul(0.125));

/** Unary operations that keep values in a range in which nothing overflows, however often they are multiplied. */
const UNARY: readonly (readonly [string, (x: Tensor) => Tensor])[] = [
  ["tanh()", (x) => x.tanh()],
  ["sin()", (x) => x.sin()],
  ["sigmoid()", (x) => x.sigmoid()],
  ["gelu()", (x) => x.gelu()],
  ['gelu("tanh")', (x) => x.gelu("tanh")],
  ["silu()", (x) => x.silu()],
  ["softplus()", (x) => x.softplus()],
  ["neg()", (x) => x.neg()],
  ["abs()", (x) => x.abs()],
  ["relu()", (x) => x.relu()],
  ["minimum(3).exp()", (x) => x.minimum(3).exp()],
  ["square().add(0.5).log()", (x) => x.square().add(0.5).log()],
  ["square().add(0.5).rsqrt()", (x) => x.square().add(0.5).rsqrt()],
  ["clamp(-1.3, 1.1)", (x) => x.clamp(-1.3, 1.1)],
];

const unary: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  const [text, f] = pickOf(gene.n, UNARY);
  g.add(f(asFloat(x)), `${name}.${text}`);
};

const binary: Maker = (g, gene) => {
  const [a, b] = [g.pick(gene.a), g.pick(gene.b)];
  const op = pickOf(gene.n, ["add", "sub", "mul", "maximum", "minimum", "div"] as const);
  const [x, y] = [asFloat(a.x), asFloat(b.x)];
  if (!broadcasts(x.shape, y.shape)) {
    const value = (gene.m % 9) / 4 + 0.3;
    g.add(x[op](value), `${a.name}.${op}(${value})`);
  } else if (op === "div") g.add(x.div(y.square().add(0.5)), `${a.name}.div(${b.name}.square().add(0.5))`);
  else g.add(x[op](y), `${a.name}.${op}(${b.name})`);
};

function broadcasts(a: readonly number[], b: readonly number[]): boolean {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => i + 1).every((i) => {
    const [x, y] = [a.at(-i) ?? 1, b.at(-i) ?? 1];
    return x === y || x === 1 || y === 1;
  });
}

const compare: Maker = (g, gene) => {
  const [a, b] = [g.pick(gene.a), g.pick(gene.b)];
  if (!broadcasts(a.x.shape, b.x.shape)) return unary(g, gene);
  const [x, y] = [asFloat(a.x), asFloat(b.x)];
  g.add(
    where(x.lt(y), x.mul(0.7), y.tanh()),
    `where(${a.name}.lt(${b.name}), ${a.name}.mul(0.7), ${b.name}.tanh())`,
  );
};

const reduce: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  const axes = x.shape.flatMap((_, i) => ((gene.m >> i) & 1 ? [i] : []));
  const keepdims = gene.b % 2 === 0;
  const op = pickOf(gene.n, ["sum", "mean", "max", "min", "variance", "logSumExp", "sum"] as const);
  const chosen = axes.length > 0 ? axes : undefined;
  g.add(
    asFloat(x)[op](chosen, { keepdims }),
    `${name}.${op}([${axes.join(", ")}], { keepdims: ${keepdims} })`,
  );
};

const alongAxis: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  if (x.rank === 0) return unary(g, gene);
  const at = gene.m % x.rank;
  const op = pickOf(gene.n, ["softmax", "logSoftmax", "cumsum", "softmax", "argmax"] as const);
  g.add(op === "argmax" ? x.argmax(at) : asFloat(x)[op](at), `${name}.${op}(${at})`);
};

const norm: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  if (x.rank === 0) return unary(g, gene);
  const y = asFloat(x);
  const centred = y.sub(y.mean(-1, { keepdims: true }));
  const scale = centred.square().mean(-1, { keepdims: true }).add(1e-2).rsqrt();
  g.add(centred.mul(scale), `layerNorm(${name})`);
};

const matmul: Maker = (g, gene) => {
  const [a, b] = [g.pick(gene.a), g.pick(gene.b)];
  const [x, y] = [asFloat(a.x), asFloat(b.x)];
  if (x.rank < 2) return binary(g, gene);
  const scale = 1 / Math.sqrt(x.shape.at(-1)!);
  const fits = y.rank >= 2 && broadcasts(x.shape.slice(0, -2), y.shape.slice(0, -2));
  if (fits && y.shape.at(-2) === x.shape.at(-1))
    g.add(x.matmul(y).mul(scale), `${a.name}.matmul(${b.name}).mul(k^-½)`);
  else if (fits && y.shape.at(-1) === x.shape.at(-1)) {
    g.add(x.matmul(y.transpose()).mul(scale), `${a.name}.matmul(${b.name}.transpose()).mul(k^-½)`);
  } else g.add(x.matmul(x.transpose()).mul(scale), `${a.name}.matmul(${a.name}.transpose()).mul(k^-½)`);
};

const move: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  if (x.rank === 0) return g.add(x.unsqueeze(0).expand([(gene.n % 5) + 1]), `${name}.unsqueeze(0).expand(…)`);
  const at = gene.m % x.rank;
  const length = x.shape[at]!;
  const start = gene.b % length;
  const order = permutation(gene.n, x.rank);
  const narrowed = 1 + (gene.n % (length - start));
  const moves: readonly (readonly [string, () => Tensor])[] = [
    [`permute([${order.join(", ")}])`, () => x.permute(order)],
    [`flip(${at})`, () => x.flip(at)],
    [`narrow(${at}, ${start}, ${narrowed})`, () => x.narrow(at, start, narrowed)],
    [
      `slice(every 2nd along ${at})`,
      () => x.slice(...x.shape.map((d, i) => (i === at ? ([0, d, 2] as const) : null))),
    ],
    [
      `pad(1, 2 along ${at})`,
      () => x.pad(x.shape.map((_, i): [number, number] => (i === at ? [1, 2] : [0, 0]))),
    ],
    ["reshape([-1])", () => x.reshape([-1])],
    [
      `reshape(split ${at})`,
      () => x.reshape(length % 2 === 0 ? x.shape.toSpliced(at, 1, length / 2, 2) : [...x.shape, 1]),
    ],
    [`unsqueeze(${at})`, () => (x.rank < 4 ? x.unsqueeze(at) : x)],
    [`concat([${name}, ${name}.flip(${at})], ${at})`, () => concat([x, x.flip(at)], at)],
    [`tril`, () => (x.rank >= 2 ? x.tril(gene.b % 3) : x)],
  ];
  const [text, f] = pickOf(gene.op, moves);
  const moved = f();
  g.add(moved.rank > 5 ? x : moved, `${name}.${text}`);
};

const lookUp: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  if (x.rank === 0) return unary(g, gene);
  const count = 1 + (gene.n % 9);
  const index = iota([count], 0)
    .mul(gene.m + 1)
    .mod(x.shape[0]!); // indices repeat if there are more of them than rows
  g.add(asFloat(x).take(index), `${name}.take(iota(${count}) · ${gene.m + 1} mod ${x.shape[0]})`);
};

const convert: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  const wanted = (["f16", "bf16", "i32"] as const).filter((to) => g.dtypes.has(to));
  if (wanted.length === 0) return unary(g, gene);
  const to = pickOf(gene.n, wanted);
  if (to === "i32") g.add(asFloat(x).mul(3).floor().cast("i32"), `${name}.mul(3).floor().cast("i32")`);
  else g.add(asFloat(x).cast(to), `${name}.cast("${to}")`);
};

const attention: Maker = (g, gene) => {
  const { x, name } = g.pick(gene.a);
  if (x.rank < 2) return unary(g, gene);
  const [t, d] = x.shape.slice(-2) as [number, number];
  const q = asFloat(x).reshape([-1, 1, t, d]);
  const causal = gene.n % 2 === 0;
  const out = nn.scaledDotProductAttention(q, q.tanh(), q.flip(2), { causal });
  g.add(out.reshape(x.shape), `attention(${name}, causal: ${causal})`);
};

const MAKERS: readonly (readonly [weight: number, Maker])[] = [
  [14, unary],
  [20, binary],
  [6, compare],
  [14, reduce],
  [8, alongAxis],
  [5, norm],
  [10, matmul],
  [24, move],
  [4, lookUp],
  [4, convert],
  [3, attention],
];
const TOTAL = MAKERS.reduce((sum, [weight]) => sum + weight, 0);

/** A graph made from its gene. */
export interface BuiltGraph {
  /** The tensors to read. */
  readonly outputs: readonly Tensor[];
  /** The steps as text, for messages. */
  readonly text: string;
}

/** Builds the graph on `device`, and takes its optimizer step if it has one. */
export function buildGraph(
  gene: GraphGene,
  device: Device,
  dtypes: ReadonlySet<DType>,
  limit: number,
): BuiltGraph {
  const g = new GraphBuilder(limit, dtypes);
  const leaves = gene.leaves.map(({ shape, dtype, seed }) => {
    const wanted: readonly DType[] = ["f32", "f32", "f32", "f16", "bf16", "i32"];
    const type = pickOf(
      dtype,
      wanted.filter((d) => dtypes.has(d)),
    );
    const values = sample(
      type === "i32" ? [-5, 6] : "any",
      type,
      shape.reduce((n, d) => n * d, 1),
      seed,
    );
    const leaf = tensorOf(device, values, shape, type);
    g.add(leaf, "leaf");
    return leaf;
  });
  const parameter = gene.update > 0 ? addParameter(g, gene, device) : null;
  for (const step of gene.steps) {
    let at = step.op % TOTAL;
    MAKERS.find(([weight]) => (at -= weight) < 0)![1](g, { ...step, op: Math.floor(step.op / TOTAL) });
  }
  const outputs: Tensor[] = g.tensors.slice(-gene.outputs);
  if (parameter) {
    const loss = scalarLoss(g.tensors.at(-1)!).add(parameter.square().sum().mul(0.1));
    const optimizer =
      gene.update === 1 ? optim.sgd([parameter], { lr: 0.1 }) : optim.adamW([parameter], { lr: 0.1 });
    optimizer.step(loss, outputs);
    g.lines.push(`${gene.update === 1 ? "sgd" : "adamW"} step on t${leaves.length}`);
    return { outputs: [...outputs, loss, parameter.mul(1)], text: g.lines.join("\n") };
  }
  if (gene.gradient) {
    const differentiable = leaves.filter(isFloat);
    outputs.push(...grad(scalarLoss(g.tensors.at(-1)!), differentiable));
    g.lines.push(`outputs and gradients of mean(tanh(t${g.tensors.length - 1}))`);
  }
  return { outputs, text: g.lines.join("\n") };
}

const scalarLoss = (x: Tensor): Tensor => asFloat(x).tanh().mean();

function addParameter(g: GraphBuilder, gene: GraphGene, device: Device): Parameter {
  const { shape, seed } = gene.leaves[0]!;
  const values = sample(
    "any",
    "f32",
    shape.reduce((n, d) => n * d, 1),
    seed + 5,
  );
  const parameter = Parameter.from(device, values, shape, "f32", "weight");
  g.add(parameter, "parameter");
  return parameter;
}
