/** Arbitrary programs of loop kernels, and of one library call with its surroundings. */
import type { AttentionParams, DType, LibraryCall } from "@tiedlora/core";
import fc from "fast-check";
import { type InstrGene, instrGene } from "./body.ts";
import { type Limits, ProgramBuilder, type ProgramCase, type StoreGene } from "./builder.ts";
import { choice, length, lengths, within } from "./dims.ts";
import { type ViewGene, viewGene } from "./views.ts";

interface KernelGene {
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  readonly instrs: readonly InstrGene[];
  readonly stores: readonly StoreGene[];
}

const storeGene: fc.Arbitrary<StoreGene> = fc.record({
  value: choice,
  perRow: fc.boolean(),
  dtype: choice,
  kind: fc.nat({ max: 2 }),
  view: viewGene,
});

const kernelGene: fc.Arbitrary<KernelGene> = fc.record({
  outer: lengths(3),
  inner: fc.oneof(
    { withCrossShrink: true },
    { arbitrary: fc.constant([]), weight: 2 },
    { arbitrary: lengths(2), weight: 3 },
  ),
  instrs: fc.array(instrGene, { minLength: 1, maxLength: 18, size: "max" }),
  stores: fc.array(storeGene, { minLength: 1, maxLength: 3 }),
});

const seed = fc.nat({ max: 1e6 });
const final = { kind: 0 };

function addKernel(builder: ProgramBuilder, gene: KernelGene, isLast: boolean): void {
  const dims = within([...gene.outer, ...gene.inner], builder.limits.elements);
  const [outer, inner] = [dims.slice(0, gene.outer.length), dims.slice(gene.outer.length)];
  const stores = isLast ? gene.stores.map((s) => (s.kind === 1 ? { ...s, ...final } : s)) : gene.stores;
  builder.begin();
  builder.add({ type: "loop", outer, inner, ...builder.body(outer, inner, gene.instrs, stores, false) });
}

/** Up to three loop kernels in a row; later ones may read what earlier ones wrote. */
export function loopPrograms(limits: Limits): fc.Arbitrary<ProgramCase> {
  return fc.record({ kernels: fc.array(kernelGene, { minLength: 1, maxLength: 3 }), seed }).map((gene) => {
    const builder = new ProgramBuilder(limits);
    gene.kernels.forEach((kernel, i) => addKernel(builder, kernel, i === gene.kernels.length - 1));
    return builder.finish(gene.seed, gene.seed % 3 === 0);
  });
}

const half: readonly DType[] = ["f32", "f32", "f16", "bf16"];
const pickDtype = (n: number, limits: Limits): DType => {
  const allowed = half.filter((d) => limits.dtypes.has(d));
  return allowed[n % allowed.length]!;
};

/** Matrix products in every arrangement of their operands, with several terms, epilogues, and stores in place. */
export function matmulPrograms(limits: Limits): fc.Arbitrary<ProgramCase> {
  const term = fc.record({ k: length, a: viewGene, b: viewGene, aType: choice, bType: choice });
  const gene = fc.record({
    batch: lengths(2),
    m: length,
    n: length,
    terms: fc.array(term, { minLength: 1, maxLength: 3 }),
    output: viewGene,
    epilogue: fc.option(
      fc.record({
        instrs: fc.array(instrGene, { maxLength: 8 }),
        stores: fc.array(storeGene, { minLength: 1, maxLength: 2 }),
      }),
    ),
    seed,
  });
  return gene.map((g) => {
    const builder = new ProgramBuilder(limits);
    const [m, n] = within([g.m, g.n], limits.elements) as [number, number];
    const batch = within(g.batch, Math.max(1, Math.floor(limits.elements / (m * n))));
    const terms = g.terms.map((t) => ({ ...t, k: within([t.k], 300)[0]! }));
    builder.begin();
    const inputs = terms.flatMap((t) => [
      builder.input(pickDtype(t.aType, limits), t.a, [...batch, m, t.k]),
      builder.input(pickDtype(t.bType, limits), t.b, [...batch, t.k, n]),
    ]);
    const params = { batch, m, n, k: terms.map((t) => t.k) };
    if (g.epilogue) {
      const stores = g.epilogue.stores.map((s) => ({ ...s, kind: s.kind === 1 ? 0 : s.kind }));
      const epilogue = builder.body([...batch, m, n], [], g.epilogue.instrs, stores, true);
      builder.add({ type: "library", name: "matmul", params: { ...params, epilogue }, inputs, outputs: [] });
    } else {
      const outputs = [builder.output("f32", g.output, [...batch, m, n])];
      builder.add({ type: "library", name: "matmul", params, inputs, outputs });
    }
    return builder.finish(g.seed);
  });
}

/** Views of attention's operands: any order of axes, an offset, gaps; a broadcast bias. */
const plain = (gene: ViewGene, broadcast = 0): ViewGene => ({ ...gene, broadcast, flip: 0, pad: 0 });

/** Attention forward and backward, with causal masks, grouped heads and biases. */
export function attentionPrograms(limits: Limits): fc.Arbitrary<ProgramCase> {
  const gene = fc.record({
    batch: fc.integer({ min: 1, max: 2 }),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    q: length,
    more: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 40 })),
    // long heads are rare: a software adapter compiles their kernels for half a minute
    d: fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom(1, 2, 3, 4, 8, 16, 20) },
      { weight: 1, arbitrary: fc.constantFrom(32, 64) },
    ),
    causal: fc.boolean(),
    bias: fc.boolean(),
    views: fc.array(viewGene, { minLength: 8, maxLength: 8 }),
    seed,
  });
  return gene.map((g) => {
    const builder = new ProgramBuilder(limits);
    const { batch, kvHeads, d, causal, bias } = g;
    const heads = kvHeads * g.group;
    const q = within([g.q], 70)[0]!;
    const kv = q + g.more;
    const params: AttentionParams = {
      batch,
      heads,
      kvHeads,
      q,
      kv,
      d,
      causal,
      scale: 1 / Math.sqrt(d),
      bias,
    };
    const [Q, K, V] = [[batch, heads, q, d], [batch, kvHeads, kv, d], [batch, kvHeads, kv, d]]; // prettier-ignore
    const view = (i: number): ViewGene => g.views[i]!;
    builder.begin();
    const operands = [Q, K, V].map((dims, i) => builder.input("f32", plain(view(i)), dims));
    if (bias) operands.push(builder.input("f32", plain(view(3), view(3).broadcast), [batch, heads, q, kv]));
    const [O, L] = [builder.output("f32", view(4), Q), builder.output("f32", view(5), [batch, heads, q])];
    builder.add({ type: "library", name: "attention", params, inputs: operands, outputs: [O, L] });
    builder.begin();
    const inputs = [...operands, O, L].map((o) => builder.reuse(o));
    inputs.push(builder.input("f32", plain(view(6)), Q));
    const outputs = [Q, K, V].map((dims, i) => builder.output("f32", view(i + 4), dims));
    builder.add({ type: "library", name: "attentionGrad", params, inputs, outputs });
    return builder.finish(g.seed);
  });
}

/** Row lookups and their transposes, with repeated and out-of-range indices. */
export function indexPrograms(limits: Limits): fc.Arbitrary<ProgramCase> {
  const gene = fc.record({
    scatter: fc.boolean(),
    rows: length,
    cols: length,
    count: length,
    dtype: choice,
    views: fc.array(viewGene, { minLength: 3, maxLength: 3 }),
    seed,
  });
  return gene.map((g) => {
    const builder = new ProgramBuilder(limits);
    const [rows, cols] = within([g.rows, g.cols], limits.elements) as [number, number];
    const count = within([g.count, cols], limits.elements)[0]!;
    const view = (i: number): ViewGene => plain(g.views[i]!);
    const params = { rows, cols, count };
    builder.begin();
    const index = builder.input("i32", view(0), [count]);
    if (g.scatter) {
      const values = builder.input("f32", view(1), [count, cols]);
      const outputs = [builder.output("f32", view(2), [rows, cols])];
      builder.add({ type: "library", name: "scatterAdd", params, inputs: [index, values], outputs });
    } else {
      const types: DType[] = ["f32", "f16", "bf16", "i32"];
      const dtype = types.filter((t) => limits.dtypes.has(t))[g.dtype % types.length] ?? "f32";
      const table = builder.input(dtype, view(1), [rows, cols]);
      const outputs = [builder.output(dtype === "i32" ? "i32" : "f32", view(2), [count, cols])];
      builder.add({ type: "library", name: "gather", params, inputs: [table, index], outputs });
    }
    return builder.finish(g.seed);
  });
}

/** The library calls of a program. */
export function libraryCalls({ program }: ProgramCase): LibraryCall[] {
  return program.steps.filter((step) => step.type === "library");
}
