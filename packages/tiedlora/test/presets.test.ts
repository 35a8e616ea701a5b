/**
 * The methods since Tied-LoRA. Each row of the table computes a method's output for a few inputs by plain loops in float64 from the
 * adapter's numbers, and its number of trained parameters by the formula of its paper.
 */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { key, normalArray, random, reference, type Tensor } from "@tiedlora/core";
import { linearSpecs, preset } from "@tiedlora/models";
import type * as nn from "@tiedlora/nn";
import {
  adapt,
  type Adapter,
  adaptersOf,
  countParameters,
  loadAdapterFiles,
  type Method,
  METHOD_NAMES,
  methodByName,
  type MethodName,
  methods,
  nativeFiles,
  type Place,
} from "../src/index.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { distance, logitsOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

/** Row-major numbers with a shape. */
interface Numbers {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
}
const at = ({ data, shape }: Numbers, ...index: number[]): number =>
  data[index.reduce((flat, i, axis) => flat * shape[axis]! + i, 0)]!;
const sum = (n: number, term: (i: number) => number): number => {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
};

/** What a formula is computed from: the factors, the weight [out, in], inputs [rows][in]. */
interface Given {
  readonly f: Readonly<Record<string, Numbers>>;
  readonly W: Numbers;
  readonly x: readonly (readonly number[])[];
  readonly place: Place;
  readonly r: number;
  /** Random numbers that the method draws in its programs. */
  readonly drawn: (name: string, shape: readonly number[]) => Promise<Numbers>;
}
/** The element [o][i] of ΔW, without the scale. */
type Delta = (o: number, i: number) => number;
type Output = (row: number, o: number) => number;

interface Case {
  /** The update of the weight, or the whole output (without an adapter: W x). */
  readonly delta?: (given: Given) => Delta | Promise<Delta>;
  readonly output?: (given: Given) => Output;
  /** Trained parameters for L layers, width d, queries, keys and values of width o together, rank r. */
  readonly count: (L: number, d: number, o: number, r: number) => number;
  /** Whether a weight can hold the update. Default: true. */
  readonly merges?: boolean;
  /** How the adapted model may differ from the base at the start. Default: 0, not in a bit. */
  readonly start?: number;
}

const Wx = ({ W, x }: Given, row: number, o: number): number =>
  sum(x[row]!.length, (i) => at(W, o, i) * x[row]![i]!);

const CASES: Readonly<Partial<Record<MethodName, Case>>> = {
  lokr: {
    // rank 2 is below half of the larger factor of neither side of these sizes: W2 is whole
    delta:
      ({ f, W }) =>
      (o, i) => {
        const [k, n] = [W.shape[0]! / f["w1"]!.shape[0]!, W.shape[1]! / f["w1"]!.shape[1]!];
        const w2 = (a: number, b: number): number =>
          f["w2"] === undefined
            ? sum(f["w2b"]!.shape[0]!, (e) => at(f["w2a"]!, a, e) * at(f["w2b"]!, e, b))
            : at(f["w2"], a, b);
        return at(f["w1"]!, Math.floor(o / k), Math.floor(i / n)) * w2(o % k, i % n);
      },
    // 4096 = 64 · 64 and 12288 = 96 · 128
    count: (L, _d, _o, r) => L * (96 * 64 + r * (128 + 64)),
  },
  rasa: {
    delta:
      ({ f, r }) =>
      (o, i) =>
        sum(r - 1, (k) => at(f["B"]!, o, k) * at(f["d"]!, k) * at(f["A"]!, k, i)) +
        sum(f["D_S"]!.data.length, (k) => at(f["B_S"]!, o, k) * at(f["D_S"]!, k) * at(f["A_S"]!, k, i)),
    count: (L, d, o, r) => L * (r - 1) * (d + o) + L * (d + o) + L * (r - 1 + L),
  },
  lily: {
    output: (given) => (row, o) => {
      const {
        f: { A, B, R },
        x,
        r,
      } = given;
      const hidden = x.map((one) =>
        Array.from({ length: r }, (_, k) => sum(one.length, (i) => at(A!, k, i) * one[i]!)),
      );
      const shares = hidden.map((h) => {
        const e = Array.from({ length: 4 }, (_, n) => Math.exp(sum(r, (k) => at(R!, n, k) * h[k]!)));
        return e.map((one) => one / e.reduce((a, b) => a + b));
      });
      const p = Array.from({ length: 4 }, (_, n) => sum(x.length, (t) => shares[t]![n]!) / x.length);
      return Wx(given, row, o) + sum(4, (n) => p[n]! * sum(r, (k) => at(B!, n, o, k) * hidden[row]![k]!));
    },
    count: (L, d, o, r) => (r * d * L) / 4 + 4 * r * o + L * r * 4,
    merges: false,
  },
  prolora: {
    // one of two rows is private; the other is in two copies, and rotating a single row changes nothing
    delta:
      ({ f, r, place: { dims } }) =>
      (o, i) => {
        const [u, s] = [Math.floor(r / 2), r - Math.floor(r / 2)];
        const step = Math.max(1, Math.floor(s / 2));
        const turned = (k: number, copy: number): number => (((k - copy * step) % s) + s) % s;
        const a = (k: number): number => {
          const copy = Math.floor(i / (dims.in / 2));
          return at(f["A0"]!, turned(k, copy), i % (dims.in / 2));
        };
        const b = (k: number): number => {
          const copy = Math.floor(o / (dims.out / 2));
          return at(f["B0"]!, o % (dims.out / 2), turned(k, copy));
        };
        return sum(u, (k) => at(f["B"]!, o, k) * at(f["A"]!, k, i)) + sum(s, (k) => b(k) * a(k));
      },
    count: (L, d, o, r) => L * ((r / 2) * (d + o) + (r / 2) * (d / 2 + o / 2)),
  },
  nola: {
    delta: async ({ f, r, place: { dims }, drawn }) => {
      const [a, b] = [await drawn("A", [64, r, dims.in]), await drawn("B", [64, dims.out, r])];
      const widen = (u: number, std: number): number => (u - 0.5) * 2 * Math.sqrt(3) * std;
      const A = (k: number, i: number): number =>
        sum(64, (n) => at(f["alpha"]!, n) * widen(at(a, n, k, i), 1 / Math.sqrt(dims.in)));
      const B = (o: number, k: number): number =>
        sum(64, (n) => at(f["beta"]!, n) * widen(at(b, n, o, k), 1 / Math.sqrt(r)));
      return (o, i) => sum(r, (k) => B(o, k) * A(k, i));
    },
    count: (L) => L * 128,
  },
  "uni-lora": {
    delta: ({ f, r, place: { dims, sizes } }) => {
      const all = sizes["index"]!;
      const times = (j: number): number => Math.floor(all / 1024) + (j < all % 1024 ? 1 : 0);
      const element = (flat: number): number => {
        const j = at(f["index"]!, flat);
        return at(f["theta"]!, j) / Math.sqrt(times(j));
      };
      return (o, i) => sum(r, (k) => element(r * dims.in + o * r + k) * element(k * dims.in + i));
    },
    count: () => 1024,
    start: 1e-2,
  },
  "tiny-lora": {
    delta:
      ({ f, r }) =>
      (o, i) =>
        sum(r, (a) =>
          sum(
            r,
            (b) =>
              at(f["B"]!, o, a) * sum(64, (n) => at(f["v"]!, n) * at(f["P"]!, n, a, b)) * at(f["A"]!, b, i),
          ),
        ),
    count: () => 64,
  },
  "tens-lora": {
    delta:
      ({ f, r, place: { type, layer } }) =>
      (o, i) =>
        sum(r, (a) =>
          sum(
            r,
            (b) =>
              at(f["U1"]!, o, a) *
              at(f["U2"]!, b, i) *
              sum(r, (c) =>
                sum(r, (e) => at(f["G"]!, a, b, c, e) * at(f["U3"]!, type, c) * at(f["U4"]!, layer, e)),
              ),
          ),
        ),
    count: (L, d, o, r) => r ** 4 + r * (d + o) + r + L * r,
  },
  "bs-lora": {
    delta:
      ({ f, r }) =>
      (o, i) =>
        ["", "_L", "_M"].reduce(
          (all, part) => all + sum(r, (k) => at(f[`B${part}`]!, o, k) * at(f[`A${part}`]!, k, i)),
          0,
        ),
    count: (L, d, o, r) => (2 * L + 1) * r * (d + o),
  },
  ia3: {
    output: (given) => (row, o) => {
      const {
        f: { l_in, l_out },
        x,
        W,
      } = given;
      return l_in
        ? sum(x[row]!.length, (i) => at(W, o, i) * at(l_in, i) * x[row]![i]!)
        : at(l_out!, o) * Wx(given, row, o);
    },
    count: (L, _d, o) => L * o,
  },
  bitfit: {
    output: (given) => (row, o) => Wx(given, row, o) + at(given.f["c"]!, o),
    count: (L, _d, o) => L * o,
    merges: false, // into modules without a bias
  },
  "rand-lora": {
    delta: ({ f, r, place: { dims } }) => {
      const [small, n] = [Math.min(dims.in, dims.out), Math.ceil(Math.min(dims.in, dims.out) / r)];
      const inner = (q: number, s: number): number =>
        at(f["lambda"]!, Math.floor(q / n), q % n) *
        at(f["A"]!, Math.floor(q / n), s) *
        at(f["gamma"]!, q % n, s);
      return (o, i) =>
        sum(r * n, (q) =>
          dims.in === small ? at(f["B"]!, o, q) * inner(q, i) : inner(q, o) * at(f["B"]!, i, q),
        );
    },
    count: (L, d, o, r) => L * (Math.min(d, o) + Math.ceil(Math.min(d, o) / r) * Math.min(d, o)),
  },
  "ada-lora": {
    delta:
      ({ f, r }) =>
      (o, i) =>
        sum(r, (k) => at(f["P"]!, o, k) * at(f["lambda"]!, k) * at(f["Q"]!, k, i)),
    count: (L, d, o, r) => L * r * (d + o + 1),
  },
  loha: {
    delta: ({ f, r }) => {
      const product = (n: number, o: number, i: number): number =>
        sum(r, (k) => at(f[`B${n}`]!, o, k) * at(f[`A${n}`]!, k, i));
      return (o, i) => product(1, o, i) * product(2, o, i);
    },
    count: (L, d, o, r) => 2 * L * r * (d + o),
  },
  hra: {
    output: (given) => (row, o) => {
      const {
        f: { U },
        x,
        W,
        r,
      } = given;
      let turned = [...x[row]!];
      for (let k = r - 1; k >= 0; k--) {
        const norm = sum(turned.length, (i) => at(U!, k, i) ** 2);
        const along = sum(turned.length, (i) => at(U!, k, i) * turned[i]!);
        turned = turned.map((one, i) => one - (2 * along * at(U!, k, i)) / norm);
      }
      return sum(turned.length, (i) => at(W, o, i) * turned[i]!);
    },
    count: (L, d, _o, r) => L * d * r,
    start: 1e-5,
  },
  oft: {
    output: (given) => (row, o) => {
      const {
        f: { K },
        x,
        W,
      } = given;
      const [n, m] = K!.shape as [number, number];
      const b = (1 + Math.sqrt(1 + 8 * m)) / 2;
      const turned = [...x[row]!].map(() => 0);
      for (let block = 0; block < n; block++) {
        const k = Array.from({ length: b }, () => Array<number>(b).fill(0));
        let next = 0;
        for (let i = 0; i < b; i++)
          for (let j = i + 1; j < b; j++) {
            k[i]![j] = at(K!, block, next);
            k[j]![i] = -at(K!, block, next++);
          }
        const times = (p: number[][], q: number[][]): number[][] =>
          p.map((_, i) => q.map((__, j) => sum(b, (e) => p[i]![e]! * q[e]![j]!)));
        const powers = [k];
        while (powers.length < 4) powers.push(times(powers.at(-1)!, k));
        for (let j = 0; j < b; j++)
          turned[block * b + j] = sum(b, (i) => {
            const R =
              Number(i === j) +
              2 * (powers[0]![i]![j]! + powers[1]![i]![j]! + powers[2]![i]![j]!) +
              powers[3]![i]![j]!;
            return x[row]![block * b + i]! * R;
          });
      }
      return sum(turned.length, (i) => at(W, o, i) * turned[i]!);
    },
    count: (L, d) => L * ((d / 32) * ((32 * 31) / 2)),
  },
};

const RANK = 2;
const device = reference();

async function numbersOf(t: Tensor): Promise<Numbers> {
  return { data: Float64Array.from(await t.data()), shape: t.shape };
}

/** The largest difference between a module's outputs and those of the formula, and the largest output. */
async function compare(
  adapter: Adapter,
  host: nn.Linear,
  { delta, output }: Case,
): Promise<[off: number, size: number]> {
  const [, layer] = [...adapter.layers()].find(([one]) => one === host)!;
  const { place, plan } = layer;
  const f: Record<string, Numbers> = {};
  for (const name of plan.factors.keys()) f[name] = await numbersOf(layer.parameter(name)!);
  const drawn = async (name: string, shape: readonly number[]): Promise<Numbers> => ({
    data: Float64Array.from(
      await device
        .tensor(Float32Array.of(0))
        .add(random.uniform(key(adapter.seed).fold(place.site.path).fold(name), shape))
        .data(),
    ),
    shape,
  });
  const flat = normalArray(key(9), 3 * place.dims.in);
  const x = [0, 1, 2].map((row) => Array.from(flat.subarray(row * place.dims.in, (row + 1) * place.dims.in)));
  const given: Given = { f, W: await numbersOf(host.weight), x, place, r: RANK, drawn };
  const change = delta && (await delta(given));
  const wanted: Output =
    output?.(given) ??
    ((row, o) => Wx(given, row, o) + sum(place.dims.in, (i) => change!(o, i) * x[row]![i]!));
  const y = [...(await host.forward(device.tensor(flat, { shape: [3, place.dims.in] })).data())];
  const out = place.dims.out;
  const expected = y.map((_, k) => wanted(Math.floor(k / out), k % out));
  return [distance(y, expected), Math.max(...expected.map(Math.abs))];
}

for (const [name, one] of Object.entries(CASES)) {
  suite(name, () => {
    const make = (target: Method["target"]): Method => methodByName(name, { rank: RANK, target });

    test("computes what its formula says, in float64", async () => {
      const model = tinyLlama(device);
      const adapter = randomize(
        await adapt(model, make(["q_proj", "k_proj", "down_proj"]), { seed: 4 }),
        7,
        0.3,
      );
      for (const path of ["self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"]) {
        const [off, size] = await compare(adapter, model.linear(`model.layers.1.${path}`)!, one);
        assert.ok(size > 0.1 && off < 5e-6 * size, `${path}: ${off} of ${size}`);
      }
    });

    test("has the number of parameters of its formula on LLaMA-2-7B", () => {
      const method = methodByName(name, { rank: 8 });
      assert.equal(
        countParameters(linearSpecs(preset("llama-2-7b")!), method).trainable,
        one.count(32, 4096, 3 * 4096, 8),
      );
    });

    test("leaves the model as it is at first, and comes back from its files", async () => {
      const model = tinyGpt2(device);
      const before = await logitsOf(model);
      const adapter = await adapt(model, make("all-linear"), { seed: 2 });
      const start = distance(await logitsOf(model), before);
      assert.ok(start <= (one.start ?? 0), `${start}`);
      for (const parameter of adapter.trainableParameters())
        parameter.set(normalArray(key(8).fold(parameter.name), parameter.size, 0, 0.3));
      const adapted = await logitsOf(model);
      assert.ok(distance(adapted, before) > 1e-4);
      const again = tinyGpt2(device);
      await loadAdapterFiles(again, asFiles(await collect(nativeFiles(adapter))));
      assert.deepEqual(await logitsOf(again), adapted);
      if (one.merges === false && name !== "bitfit") {
        await assert.rejects(adaptersOf(model).merge(), /is not a linear map of its input/);
        return;
      }
      await adaptersOf(model).merge();
      const size = Math.max(...adapted.map(Math.abs));
      assert.ok(distance(await logitsOf(model), adapted) < 1e-4 * size);
    });
  });
}

suite("trained rows of an embedding", () => {
  test("change the vectors of their tokens alone, by what was trained", async () => {
    const model = tinyLlama(device);
    const table = await numbersOf(model.parameters()[0]!);
    const adapter = adapt(model, methods.trainedTokens({ tokens: [5, 2] }));
    assert.deepEqual(adapter.count(), { trainable: 2 * 8, total: 2 * 8 + 2 });
    randomize(adapter);
    const rows = await numbersOf(adapter.select({ factors: ["rows"] })[0]!);
    const [embedding] = [...adaptersOf(model).hosts.values()] as nn.Embedding[];
    const read = await embedding!.forward(device.tensor(Int32Array.of(1, 2, 5))).data();
    [1, 2, 5].forEach((token, t) => {
      for (let i = 0; i < 8; i++) {
        const column = [5, 2].indexOf(token);
        const wanted = at(table, token, i) + (column < 0 ? 0 : at(rows, i, column));
        assert.ok(Math.abs(read[t * 8 + i]! - wanted) < 1e-6);
      }
    });
  });

  test("are refused in a linear, which has no tokens", () => {
    const model = tinyLlama(device);
    assert.throws(
      () => adapt(model, methods.trainedTokens({ target: ["q_proj"] })),
      /q_proj is not an embedding; give the input embedding as the target/,
    );
  });

  test("are refused if a token is given twice, or is none", () => {
    assert.throws(() => methods.trainedTokens({ tokens: [3, 3] }), /tokens.*different ids/);
    assert.throws(() => methods.trainedTokens({ tokens: [1.5] }), /a token/);
  });
});

suite("copies of the model's own parameters", () => {
  for (const [name, make, norms] of [
    ["a Llama", tinyLlama, 2 * 3 + 1],
    ["GPT-2", tinyGpt2, 2 * (2 * 3 + 1)],
  ] as const) {
    // prettier-ignore
    test(`norm tuning trains the norms of ${name} alone, is merged, and comes back from its file`, async () => {
      const model = make(device);
      const adapter = adapt(model, methods.normTuning());
      assert.deepEqual(adapter.count(), { trainable: 8 * norms, total: 8 * norms });
      assert.ok([...adapter.stateDict().keys()].every((path) => /norm|ln_/.test(path)));
      const before = await logitsOf(model);
      randomize(adapter);
      const adapted = await logitsOf(model);
      assert.ok(distance(adapted, before) > 1e-3);
      const again = make(device);
      await loadAdapterFiles(again, asFiles(await collect(nativeFiles(adapter))));
      assert.deepEqual(await logitsOf(again), adapted);
      await adaptersOf(model).mergeAndUnload();
      assert.deepEqual(await logitsOf(model), adapted);
    });

    test(`full fine-tuning of ${name} has all its parameters, once, and norms can be trained beside LoRA`, async () => {
      const model = make(device);
      const all = new Set(model.parameters()).size;
      const size = [...new Set(model.parameters())].reduce((sum, parameter) => sum + parameter.size, 0);
      const adapter = adapt(model, methods.full());
      assert.deepEqual(
        [adapter.parameters().length, adapter.count()],
        [all, { trainable: size, total: size }],
      );
      randomize(adapter);
      const adapted = await logitsOf(model);
      await adaptersOf(model).mergeAndUnload();
      assert.deepEqual(await logitsOf(model), adapted);
      assert.equal(new Set(model.parameters()).size, all);
      const beside = adapt(make(device), methods.lora({ rank: 2, modulesToSave: ["*norms"] }));
      assert.equal(beside.plan.replaced.length, norms);
    });
  }
});

suite("options that make no sense are refused", () => {
  const cases: readonly (readonly [() => Method, RegExp])[] = [
    [() => methods.rasa({ rank: 4, pool: 4 }), /rasa: pool 4 given for rank 4; expected less/],
    [() => methods.prolora({ rank: 2, own: 2 }), /prolora: rank 2 given with 2 of it private/],
    [() => methods.hra({ rank: 3 }), /hra: rank 3 given; expected an even number/],
    [() => methods.hra({ rankPattern: { q_proj: 5 } }), /hra: rank 5 given/],
    [() => methods.oft({ block: 1 }), /oft: block/],
    [() => methods.nola({ bases: 0 }), /nola: bases/],
  ];
  for (const [make, message] of cases) test(String(message), () => assert.throws(make, { message }));
});

test("a file of NOLA holds its coefficients alone, and needs the seed", async () => {
  const adapter = adapt(tinyLlama(device), methods.nola({ rank: RANK }), { seed: 6 });
  const files = await collect(nativeFiles(adapter));
  assert.ok((files.get("adapter_model.safetensors") as Uint8Array).length < 3 * 128 * 4 + 1500);
  const config = JSON.parse(files.get("adapter_config.json") as string) as { seed: number };
  assert.equal(config.seed, 6);
});

test("a method whose formula has no scale refuses one, and all others have one", () => {
  const unscaled = METHOD_NAMES.filter((name) => {
    try {
      methodByName(name, { rank: 4, alpha: 12, ...(name === "trained-tokens" && { tokens: [1] }) });
      return false;
    } catch (error) {
      assert.match(String(error), new RegExp(`${name}: alpha 12 given, and this method's formula has no scale; leave it out`)); // prettier-ignore
      return true;
    }
  });
  assert.deepEqual(unscaled.sort(), ["full", "hra", "ia3", "norm-tuning", "oft", "prefix-tuning", "prompt-tuning"]); // prettier-ignore
  for (const options of [{ scaling: "sqrt-rank" }, { alphaPattern: { q_proj: 2 } }] as const)
    assert.throws(() => methods.hra(options), /hra: (scaling "sqrt-rank"|alphaPattern) given/);
  methods.hra({ rank: 4, alpha: 4, scaling: "rank" }); // a scale of 1
});
