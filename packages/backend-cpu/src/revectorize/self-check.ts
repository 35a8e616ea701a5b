/**
 * A spread of kernels whose results are compared bit for bit, with and without the engine's 256-bit vectors. It runs in
 * processes of its own, which compile everything by the optimizing compiler: only that one combines operations.
 */
import { arange, Device, grad, type Tensor, where } from "@tiedlora/core";
import { key, normalArray } from "@tiedlora/kernels/random";
import {
  type AttentionParams,
  contiguousStrides,
  type Operand,
  product,
  type Program,
} from "@tiedlora/kernels";
import type { Tile } from "../codegen/matmul/gemm.ts";
import { CpuBackend } from "../device/backend.ts";
import { defaultTile, parallelism, revectorizes } from "../device/platform.ts";
import type { Findings } from "./verdict.ts";

/** The results of one kernel, as tensors. */
type Kernel = (random: (...shape: number[]) => Tensor) => readonly Tensor[];

const KERNELS: Readonly<Record<string, Kernel>> = {
  "a product": (r) => [r(61, 47).matmul(r(47, 83))],
  "a product of transposes": (r) => [r(129, 37).transpose().matmul(r(66, 129).transpose())],
  "a product of batches, with bias and gelu": (r) => [
    r(3, 34, 65)
      .matmul(r(3, 65, 50))
      .add(r(50))
      .gelu(),
  ],
  "a product with much after it": (r) => {
    const [x, y] = [r(45, 51), r(45, 37).matmul(r(37, 51))];
    return [y.mul(x.gelu("tanh").add(x.sigmoid()).add(x.tanh())).add(y.square().sqrt().add(1).reciprocal())];
  },
  "a product of half-precision weights": (r) => [
    r(40, 96).matmul(r(72, 96).cast("f16").cast("f32").transpose()),
    r(40, 96).matmul(r(96, 72).cast("bf16").cast("f32")),
  ],
  "a product of one row": (r) => [
    r(1, 130).matmul(r(130, 70)),
    r(1, 96).matmul(r(70, 96).cast("f16").transpose().cast("f32")),
  ],
  "softmax and its gradient": (r) => withGradient(r(37, 61), (x) => x.softmax(-1).mul(x)),
  "a norm and its gradient": (r) =>
    withGradient(r(29, 75), (x) => x.mul(x.square().mean(-1, { keepdims: true }).add(1e-5).rsqrt())),
  "exponentials and logarithms": (r) => [r(517).exp(), r(517).abs().add(0.1).log(), r(517).sigmoid()],
  "sines, cosines and powers": (r) => [r(517).mul(300).sin(), r(517).cos(), r(517).abs().pow(1.7)],
  "activations and their gradients": (r) =>
    withGradient(r(23, 31), (x) => x.tanh().add(x.gelu()).add(x.silu())),
  reductions: (r) => [r(37, 91).sum(0), r(37, 91).max(1), r(37, 91).argmax(-1), r(5, 7, 41).mean([0, 2])],
  "comparisons and selections": (r) => [where(r(19, 45).gt(r(45)), r(19, 45), r(19, 1))],
  "integers and casts": (r) => [r(333).mul(1e4).cast("i32").mod(97), r(333).cast("bf16"), r(333).cast("f16")],
  "lookups and their gradient": (r) => withGradient(r(17, 21), (x) => x.take(arange(30).mod(17)).square()),
  "an update as AdamW's": (r) => {
    const [g, m] = [r(1001), r(1001)];
    const mean = m.mul(0.9).add(g.mul(0.1));
    return [
      mean,
      r(1001)
        .mul(0.99)
        .sub(mean.div(g.square().sqrt().add(1e-8)).mul(1e-3)),
    ];
  },
};

function withGradient(x: Tensor, f: (x: Tensor) => Tensor): readonly [Tensor, Tensor] {
  const y = f(x);
  const [g] = grad(y.square().sum(), [x]);
  return [y, g!];
}

const ATTENTION: AttentionParams = {
  batch: 2,
  heads: 4,
  kvHeads: 2,
  q: 33,
  kv: 33,
  d: 24,
  causal: true,
  scale: 0.2,
  bias: false,
};

/** Attention and its gradient, as a program of these two steps, since tensors alone have no attention. */
async function attention(backend: CpuBackend): Promise<Float32Array[]> {
  const { batch, heads, kvHeads, q, kv, d } = ATTENTION;
  const [queries, keys, rows] = [[batch, heads, q, d], [batch, kvHeads, kv, d], [batch, heads, q]]; // prettier-ignore
  const shapes = {
    q: queries,
    k: keys,
    v: keys,
    dO: queries,
    o: queries,
    l: rows,
    dq: queries,
    dk: keys,
    dv: keys,
  };
  const names = Object.keys(shapes) as (keyof typeof shapes)[];
  const isInput = (name: keyof typeof shapes): boolean => ["q", "k", "v", "dO"].includes(name);
  const at = (...wanted: (keyof typeof shapes)[]): Operand[] =>
    wanted.map((name) => ({
      buffer: names.indexOf(name),
      dtype: "f32",
      view: { offset: 0, strides: contiguousStrides(shapes[name]) },
    }));
  const bytes = (name: keyof typeof shapes): number => 4 * product(shapes[name]);
  const program: Program = {
    scalars: 0,
    buffers: names.map((name) => ({ kind: isInput(name) ? "input" : "output", bytes: bytes(name) })),
    steps: [
      { type: "library", name: "attention", params: ATTENTION, inputs: at("q", "k", "v"), outputs: at("o", "l") }, // prettier-ignore
      { type: "library", name: "attentionGrad", params: ATTENTION, inputs: at("q", "k", "v", "o", "l", "dO"), outputs: at("dq", "dk", "dv") }, // prettier-ignore
    ],
  };
  const executable = await backend.compile(program);
  const buffers = names.map((name) => backend.alloc(bytes(name)));
  const given = buffers.filter((_, i) => isInput(names[i]!));
  given.forEach((buffer, i) => buffer.write(normalArray(key(100 + i), buffer.bytes / 4)));
  const results = buffers.filter((_, i) => !isInput(names[i]!));
  executable.run(given, results, new Float64Array());
  return Promise.all(results.map(async (buffer) => new Float32Array(await buffer.read())));
}

const SIZE = 192;
const TURNS = 60;

/**
 * Runs all kernels, with 256-bit vectors or without, and times a product with each tile. What was compiled before V8's flag is
 * set keeps 128-bit vectors.
 */
export async function check(revectorize: boolean): Promise<Findings> {
  const narrow = await Product.compile(defaultTile(false));
  revectorizes(revectorize);
  const results = await resultsWith(defaultTile(true));
  const wide = await Product.compile(defaultTile(true));
  // The tiles take turns, so that other work on the machine slows both.
  for (let turn = 0; turn < TURNS; turn++) for (const product of [narrow, wide]) await product.run();
  for (const product of [narrow, wide]) product.device.close();
  return { results, wideMs: wide.shortestMs, narrowMs: narrow.shortestMs };
}

/** A hash of the results of each kernel. */
export async function resultsWith(tile: Tile): Promise<Record<string, number>> {
  const backend = new CpuBackend({ threads: Math.min(2, parallelism()), tile });
  const device = new Device(backend);
  const results: Record<string, number> = {};
  for (const [i, [name, kernel]] of Object.entries(KERNELS).entries()) {
    let drawn = 0;
    const random = (...shape: number[]): Tensor => {
      return device.tensor(normalArray(key(i).fold(drawn++), product(shape)), { shape });
    };
    let sum = 0;
    for (const result of kernel(random)) sum = hash(await result.data(), sum);
    results[name] = sum;
  }
  results["attention and its gradient"] = (await attention(backend)).reduce((sum, one) => hash(one, sum), 0);
  device.close();
  return results;
}

/** A product of two matrices, and the shortest time that it took. */
class Product {
  readonly device: Device;
  readonly #matrix: Tensor;
  shortestMs = Infinity;

  private constructor(tile: Tile) {
    this.device = new Device(new CpuBackend({ threads: 1, tile }));
    this.#matrix = this.device.tensor(normalArray(key(1), SIZE * SIZE), { shape: [SIZE, SIZE] });
  }

  static async compile(tile: Tile): Promise<Product> {
    const product = new Product(tile);
    await product.run();
    return product;
  }

  async run(): Promise<void> {
    const start = performance.now();
    await this.#matrix.matmul(this.#matrix).data();
    this.shortestMs = Math.min(this.shortestMs, performance.now() - start);
  }
}

/** FNV-1a over the bytes of `values`. */
function hash({ buffer, byteOffset, byteLength }: ArrayBufferView, start: number): number {
  let h = (start ^ 0x811c9dc5) >>> 0;
  for (const byte of new Uint8Array(buffer, byteOffset, byteLength))
    h = Math.imul(h ^ byte, 0x01000193) >>> 0;
  return h;
}
