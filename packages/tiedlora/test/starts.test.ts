/** The starts of A and B against their formulas in float64, with no change of the model's outputs where they promise it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type * as nn from "@tiedlora/nn";
import {
  adaptersOf,
  type Adapter,
  adaptWithStart,
  inputMoments,
  type LossInputs,
  type Method,
  methods,
  nativeFiles,
  loadAdapterFiles,
  peftLoraFiles,
  START_NAMES,
  type StartName,
  type StartOptions,
  STARTS,
  weightGradients,
} from "../src/index.ts";
import { asFiles, collect } from "./support/files.ts";
import { tinyLlama } from "./support/tiny.ts";

type Model = ReturnType<typeof tinyLlama>;
type Matrix = number[][];

const RANK = 2;
const TARGET = ["o_proj"];
const rows = [[1, 5, 9, 2, 7, 3], [4, 4, 8, 1, 0, 6]]; // prettier-ignore
const batches: LossInputs[] = rows.map((ids) => ({ inputIds: [Int32Array.from(ids)], mask: [new Float32Array(ids.length).fill(1)] })); // prettier-ignore
const outputs = async (model: Model): Promise<number[]> =>
  Promise.all(batches.map((batch) => model.loss(batch).item()));

const table = (values: ArrayLike<number>, columns: number): Matrix =>
  Array.from({ length: values.length / columns }, (_, i) => Array.from(values).slice(i * columns, (i + 1) * columns)); // prettier-ignore
const turned = (a: Matrix): Matrix => a[0]!.map((_, j) => a.map((row) => row[j]!));
const times = (a: Matrix, b: Matrix): Matrix => {
  const columns = turned(b);
  return a.map((row) => columns.map((column) => row.reduce((sum, x, k) => sum + x * column[k]!, 0)));
};
const near = (found: Matrix, wanted: Matrix, what: string): void => {
  const scale = Math.max(1e-6, ...wanted.flat().map(Math.abs));
  found.forEach((row, i) => row.forEach((x, j) => assert.ok(Math.abs(x - wanted[i]![j]!) < 2e-4 * scale, `${what} [${i}, ${j}]: ${x}, not ${wanted[i]![j]}`))); // prettier-ignore
};

/** The best approximation of rank `r`, by power iteration with deflation: nothing of the library. */
function leading(matrix: Matrix, r: number): { u: number[]; s: number; v: number[] }[] {
  let rest = matrix.map((row) => [...row]);
  return Array.from({ length: r }, () => {
    let v = rest[0]!.map((_, j) => 1 + 0.1 * j);
    for (let i = 0; i < 4000; i++) {
      const next = times(turned(rest), times(rest, v.map((x) => [x]))).flat(); // prettier-ignore
      const length = Math.hypot(...next);
      v = next.map((x) => x / length);
    }
    const image = times(rest, v.map((x) => [x])).flat(); // prettier-ignore
    const s = Math.hypot(...image);
    const u = image.map((x) => x / s);
    rest = rest.map((row, i) => row.map((x, j) => x - s * u[i]! * v[j]!));
    return { u, s, v };
  });
}
const product = (parts: ReturnType<typeof leading>): Matrix =>
  parts[0]!.u.map((_, i) => parts[0]!.v.map((_unused, j) => parts.reduce((sum, { u, s, v }) => sum + s * u[i]! * v[j]!, 0))); // prettier-ignore
/** The orthogonal projection onto the span of vectors. */
const projection = (vectors: number[][]): Matrix =>
  vectors[0]!.map((_, i) =>
    vectors[0]!.map((_unused, j) => vectors.reduce((sum, v) => sum + v[i]! * v[j]!, 0)),
  );

interface Started {
  readonly model: Model;
  readonly adapter: Adapter;
  readonly A: Matrix;
  readonly B: Matrix;
  readonly W: Matrix;
  readonly site: string;
}

const methodFor = (start: StartName, options: { alpha?: number } = {}): Method => {
  const settings = { rank: RANK, target: TARGET, ...options };
  return STARTS[start].subtracted ? methods.loraResidual(settings) : methods.lora(settings);
};

async function started(
  start: StartName,
  more: Partial<StartOptions> = {},
  options: { alpha?: number } = {},
): Promise<Started> {
  const model = tinyLlama();
  const adapter = await adaptWithStart(model, methodFor(start, options), {
    start,
    batches,
    seed: 1,
    ...more,
  });
  const { site } = adapter.plan.sites[0]!;
  const of = async (name: string, columns: number): Promise<Matrix> =>
    table(await adapter.parameter(`${site.path}.${name}`).data(), columns);
  const host = adaptersOf(model).hosts.get(site.path)! as nn.Linear;
  const W = table(await host.weight.data(), site.in);
  return { model, adapter, A: await of("A", site.in), B: await of("B", RANK), W, site: site.path };
}

const original = async (path: string): Promise<Float32Array> => {
  const host = adaptersOf(tinyLlama()).hosts.get(path)! as nn.Linear;
  return (await host.weight.data()).map((x, i) => x + 0.05 * Math.sin(i)) as Float32Array;
};

for (const start of START_NAMES.filter((name) => name !== "loftq")) {
  test(`${start}: the model's outputs are those without the adapter`, async () => {
    const before = await outputs(tinyLlama());
    const { model, adapter } = await started(start, {}, { alpha: 3 });
    const after = await outputs(model);
    before.forEach((loss, i) => assert.ok(Math.abs(loss - after[i]!) < 2e-6, `${loss} and ${after[i]}`));
    assert.equal(adapter.takesPart, true);
    assert.deepEqual(adaptersOf(model).names, ["default"]);
  });
}

test("pissa: scale · B A is the principal part of the weight, and A and B share the singular values", async () => {
  const { A, B, W } = await started("pissa", {}, { alpha: 3 });
  const parts = leading(W, RANK);
  near(times(B, A).map((row) => row.map((x) => 1.5 * x)), product(parts), "B A"); // prettier-ignore
  A.forEach((row, k) => assert.ok(Math.abs(Math.hypot(...row) - Math.sqrt(parts[k]!.s / 1.5)) < 1e-4));
});

test("olora: B has orthonormal columns, and B A is the weight projected onto its first columns", async () => {
  const { A, B, W } = await started("olora");
  near(times(turned(B), B), [[1, 0], [0, 1]], "Bᵀ B"); // prettier-ignore
  const BA = times(B, A);
  near(BA.map((row) => row.slice(0, RANK)), W.map((row) => row.slice(0, RANK)), "first columns"); // prettier-ignore
  near(A, times(turned(B), W), "A");
  assert.ok(Math.abs(A[1]![0]!) < 1e-5, "R is triangular");
});

test("orthogonal: B A is zero, and neither A nor B is", async () => {
  const { A, B } = await started("orthogonal");
  assert.ok(times(B, A).flat().every((x) => Math.abs(x) < 1e-7)); // prettier-ignore
  for (const factor of [A, B]) assert.ok(Math.hypot(...factor.flat()) > 0.1);
});

test("eva: A spans the principal directions of the inputs", async () => {
  const model = tinyLlama();
  const moments = await inputMoments(model, { target: TARGET }, batches);
  const { A, B, site } = await started("eva");
  const C = table(moments.get(site)!, A[0]!.length);
  near(C, turned(C), "moments are symmetric");
  near(projection(A), projection(leading(C, RANK).map(({ v }) => v)), "A's span");
  assert.ok(B.flat().every((x) => x === 0));
});

test("input moments are those of the inputs themselves", async () => {
  const model = tinyLlama();
  const [path, host] = [...adaptersOf(model).hosts].find(([one]) => one.endsWith("o_proj"))! as [
    string,
    nn.Linear,
  ];
  let sum: Matrix | null = null;
  const forward = host.forward.bind(host);
  const seen: Promise<Matrix>[] = [];
  host.forward = (x) => {
    seen.push(x.data().then((values) => table(values, x.shape.at(-1)!)));
    return forward(x);
  };
  await outputs(model);
  host.forward = forward;
  const all = await Promise.all(seen);
  for (const X of all) {
    const square = times(turned(X), X).map((row) => row.map((x) => x / X.length / all.length));
    sum = sum === null ? square : sum.map((row, i) => row.map((x, j) => x + square[i]![j]!));
  }
  const found = await inputMoments(model, { target: TARGET }, batches);
  near(table(found.get(path)!, host.inFeatures), sum!, "moments");
});

test("corda: B A C is the principal part of W C, of the damped moments C", async () => {
  const model = tinyLlama();
  const moments = await inputMoments(model, { target: TARGET }, batches);
  const { A, B, W, site } = await started("corda", {}, { alpha: 3 });
  const raw = table(moments.get(site)!, A[0]!.length);
  const mean = raw.reduce((total, row, i) => total + row[i]!, 0) / raw.length;
  const C = raw.map((row, i) => row.map((x, j) => (i === j ? x + 0.01 * mean : x)));
  near(times(times(B, A), C).map((row) => row.map((x) => 1.5 * x)), product(leading(times(W, C), RANK)), "B A C"); // prettier-ignore
});

test("lora-ga: A and B are singular vectors of the weight's gradient, of the stable size", async () => {
  const model = tinyLlama();
  const gradients = await weightGradients(model, { target: TARGET }, batches);
  const { A, B, W, site } = await started("lora-ga");
  const G = table(gradients.get(site)!, A[0]!.length);
  // the gradient by differences of the loss in one element of the weight
  const host = adaptersOf(model).hosts.get(site)! as nn.Linear;
  const flat = Float32Array.from(W.flat());
  const at = async (by: number): Promise<number> => {
    host.weight.set(flat.map((x, i) => (i === 3 ? x + by : x)));
    return (await outputs(model)).reduce((a, b) => a + b, 0) / batches.length;
  };
  const slope = ((await at(0.02)) - (await at(-0.02))) / 0.04;
  assert.ok(Math.abs(slope - G[0]![3]!) < 1e-3 * Math.max(0.1, Math.abs(slope)), `${slope} and ${G[0]![3]}`);
  const parts = leading(G, 2 * RANK);
  const size = W.length ** 0.5 / 16;
  near(projection(A), projection(parts.slice(0, RANK).map(({ v }) => v)).map((row) => row.map((x) => x * size)), "A"); // prettier-ignore
  near(projection(turned(B)), projection(parts.slice(RANK).map(({ u }) => u)).map((row) => row.map((x) => x * size)), "B"); // prettier-ignore
});

test("loftq: scale · B A is the principal part of what quantization lost", async () => {
  const { A, B, W, site } = await started("loftq", { original }, { alpha: 3 });
  const full = table(await original(site), A[0]!.length);
  const lost = full.map((row, i) => row.map((x, j) => x - W[i]![j]!));
  near(times(B, A).map((row) => row.map((x) => 1.5 * x)), product(leading(lost, RANK)), "B A"); // prettier-ignore
});

test("an adapter with a residual start has the same outputs after saving, and as a LoRA file of twice the rank", async () => {
  const { model, adapter } = await started("pissa");
  for (const { site } of adapter.plan.sites) {
    const parameter = adapter.parameter(`${site.path}.B`);
    parameter.set((await parameter.data()).map((x, i) => x + 0.05 * Math.cos(i)));
  }
  const trained = await outputs(model);
  assert.ok(Math.abs(trained[0]! - (await outputs(tinyLlama()))[0]!) > 1e-4);
  for (const files of [nativeFiles(adapter), peftLoraFiles(adapter)]) {
    const again = tinyLlama();
    const loaded = await loadAdapterFiles(again, asFiles(await collect(files)));
    const found = await outputs(again);
    trained.forEach((loss, i) => assert.ok(Math.abs(loss - found[i]!) < 2e-6, `${loss} and ${found[i]}`));
    if (loaded.method.name === "lora") assert.equal(loaded.method.rank, 2 * RANK);
  }
});

test("what a start lacks is said with the remedy, and the model is unchanged", async () => {
  const cases: [Method, StartOptions, RegExp][] = [
    [methodFor("eva"), { start: "pissa" }, /the start pissa is not zero: lora would change .* choose lora-residual/],
    [methodFor("pissa"), { start: "eva", batches }, /needs no lora-residual.*choose lora/],
    [methods.tl6({ rank: 2, target: TARGET }), { start: "eva", batches }, /which tl6 has not; choose lora/],
    [methodFor("eva"), { start: "eva" }, /eva starts from data, and no batches are given/],
    [methodFor("loftq"), { start: "loftq" }, /needs the weights before quantization/],
    [methodFor("loftq"), { start: "loftq", original: () => Promise.resolve(new Float32Array(3)) }, /has 3 numbers; expected/],
    [methods.lora({ rank: 3, target: TARGET }), { start: "orthogonal" }, /rank 3 is odd; give an even rank/],
    [methods.loraResidual({ rank: 999, target: TARGET }), { start: "pissa" }, /rank 999 of a/],
    [methods.loraResidual({ rank: 999, target: TARGET }), { start: "olora" }, /rank 999 of a/],
    [methods.loraResidual({ rank: 7, target: TARGET }), { start: "lora-ga", batches }, /half of the shorter side/],
    [methodFor("eva"), { start: "nonsense" as StartName }, /start.*"nonsense".*"pissa"/],
  ]; // prettier-ignore
  for (const [method, options, message] of cases) {
    const model = tinyLlama();
    await assert.rejects(adaptWithStart(model, method, options), message);
    assert.deepEqual(adaptersOf(model).names, []);
  }
  const model = tinyLlama();
  const host = [...adaptersOf(model).hosts].find(([path]) => path.endsWith("o_proj"))![1] as nn.Linear;
  host.weight.set((await host.weight.data()).map((x, i) => (i === 5 ? NaN : x)));
  await assert.rejects(
    adaptWithStart(model, methodFor("pissa"), { start: "pissa" }),
    /weight of .*o_proj has NaN at 5/,
  );
});
