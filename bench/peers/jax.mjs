/**
 * The process that trains with jax-js, written as its users have to: an array is owned by its last use, all others take
 * `.ref`. Modes: "jit" compiles the whole step (its embedding gradient fails there unless the rows pass through one more
 * operation), "eager" nothing.
 */
import {
  ADAMW,
  adapterInit,
  batchSizes,
  gptInit,
  initialValues,
  LORA,
  mlpBatch,
  mlpInit,
  sizeOf,
  tokens,
} from "../problems.ts";
import { serve } from "./serve.ts";

async function load(backend) {
  if (backend === "webgpu") (await import("./dawn.mjs")).installDawn();
  else (await import("./workers.mjs")).installWorkers();
  const jax = await import("@jax-js/jax");
  const device = backend === "webgpu" ? "webgpu" : "wasm";
  const available = await jax.init(device);
  if (!available.includes(device))
    throw new Error(`jax-js has no ${device} here, but ${available.join(", ")}`);
  jax.defaultDevice(device);
  return jax;
}

await serve(async ({ work, backend, mode }) => {
  const jax = await load(backend);
  const { numpy: np, nn, jit, valueAndGrad, tree } = jax;
  const ints = (data) => np.array(data, { dtype: np.int32 });
  const parameters = (inits) =>
    Object.fromEntries(inits.map((init, i) => [init[0], np.array(initialValues(init, i)).reshape(init[1])]));

  /** Mean cross-entropy; the comparison stands for a one-hot matrix and is never stored. */
  const crossEntropy = (logits, targets, classes) => {
    const hot = np
      .arange(classes)
      .astype(np.int32)
      .reshape([1, classes])
      .equal(targets.reshape([-1, 1]));
    return np.where(hot, nn.logSoftmax(logits), 0).sum(-1).mean().neg();
  };
  const layerNorm = (x, gain, bias) => {
    const centred = x.ref.sub(x.mean(-1, { keepdims: true }));
    const variance = np.square(centred.ref).mean(-1, { keepdims: true });
    return centred
      .mul(np.reciprocal(np.sqrt(variance.add(1e-5))))
      .mul(gain)
      .add(bias);
  };

  function mlp() {
    const loss = (p, _frozen, x, y) => {
      let h = x;
      for (let l = 0; l < 3; l++) {
        h = np.matmul(h, p[`w${l}`]).add(p[`b${l}`]);
        if (l < 2) h = nn.relu(h);
      }
      return crossEntropy(h, y, 10);
    };
    const data = Array.from({ length: 16 }, (_, i) => mlpBatch(i));
    return {
      loss,
      trained: parameters(mlpInit()),
      frozen: {},
      settings: { ...ADAMW, betas: [0.9, 0.999], weightDecay: 0 },
      batch: (i) => [np.array(data[i % 16].x).reshape([128, 784]), ints(data[i % 16].y)],
    };
  }

  function gpt() {
    const size = sizeOf(work.size);
    const { layers, dim: d, heads, vocab, batch } = size;
    const factors = adapterInit(size, work.method);
    const base = parameters(gptInit(size));
    const all = parameters(factors.map(({ init }) => init));
    const pick = (trained) =>
      Object.fromEntries(factors.filter((f) => f.trained === trained).map(({ init: [k] }) => [k, all[k]]));
    const full = work.method === "full";

    const adapterOf = (p, l) => {
      const of = (name) => {
        const own = p[`${l}.${name}`];
        const tied = p[name];
        return own ?? (tied && (l < layers - 1 ? tied.ref : tied));
      };
      return (x) => {
        const u = of("u");
        const v = of("v");
        const down = np.matmul(x, of("A"));
        const up = np.matmul(u ? down.mul(u) : down, of("B"));
        return (v ? up.mul(v) : up).mul(LORA.alpha / LORA.rank);
      };
    };
    const attention = (qkv) => {
      const length = qkv.shape[0] / batch;
      const [q, k, v] = np
        .split(qkv, 3, 1)
        .map((part) => part.reshape([batch, length, heads, d / heads]).transpose([0, 2, 1, 3]));
      const scores = np.matmul(q, np.matrixTranspose(k)).mul(1 / Math.sqrt(d / heads));
      const masked = np.where(np.tri(length, length, 0, { dtype: np.bool }), scores, -1e9);
      return np
        .matmul(nn.softmax(masked), v)
        .transpose([0, 2, 1, 3])
        .reshape([batch * length, d]);
    };
    const loss = (trained, frozen, x, y) => {
      const p = { ...frozen, ...trained };
      const length = x.shape[0] / batch;
      const rows = np.take(p.wte.ref, x, 0);
      // Under jit, "scatter input is not imm" unless the gradient of the rows is a kernel's result: 1 + 2^-23 is
      // the smallest factor that is not optimised away.
      let h = mode === "jit" ? rows.mul(1 + 2 ** -23) : rows;
      h = h
        .reshape([batch, length, d])
        .add(length === size.length ? p.wpe : p.wpe.slice([0, length]))
        .reshape([batch * length, d]);
      for (let l = 0; l < layers; l++) {
        const of = (name) => p[`${l}.${name}`];
        const a = layerNorm(h.ref, of("ln1g"), of("ln1b"));
        let qkv = np.matmul(full ? a : a.ref, of("wqkv")).add(of("bqkv"));
        if (!full) qkv = qkv.add(adapterOf(p, l)(a));
        h = h.add(np.matmul(attention(qkv), of("wo")).add(of("bo")));
        const b = layerNorm(h.ref, of("ln2g"), of("ln2b"));
        h = h.add(np.matmul(nn.gelu(np.matmul(b, of("w1")).add(of("b1"))), of("w2")).add(of("b2")));
      }
      return crossEntropy(np.matmul(layerNorm(h, p.lnfg, p.lnfb), np.matrixTranspose(p.wte)), y, vocab);
    };
    const data = batchSizes(work).map((one, i) => tokens(i, one));
    return {
      loss,
      trained: full ? base : pick(true),
      frozen: full ? {} : { ...base, ...pick(false) },
      settings: full ? ADAMW : { ...ADAMW, lr: LORA.lr, weightDecay: 0 },
      batch: (i) => [ints(data[i % data.length].x), ints(data[i % data.length].y)],
    };
  }

  const { loss, trained, frozen, settings, batch } = work.kind === "mlp" ? mlp() : gpt();
  const { lr, betas, eps, weightDecay } = settings;
  /** AdamW on one array; c1, c2 are the bias corrections. */
  const updateOne = (p, g, m, v, c1, c2) => {
    const shrinks = weightDecay > 0 && p.ndim >= 2;
    m = m.mul(betas[0]).add(g.ref.mul(1 - betas[0]));
    v = v.mul(betas[1]).add(np.square(g).mul(1 - betas[1]));
    const change = m.ref
      .mul(c1)
      .div(np.sqrt(v.ref.mul(c2)).add(eps))
      .mul(lr);
    return [shrinks ? p.mul(1 - lr * weightDecay).sub(change) : p.sub(change), m, v];
  };
  const gradient = valueAndGrad(loss);
  const wholeStep = (p, m, v, f, x, y, c1, c2) => {
    const [value, g] = gradient(tree.ref(p), f, x, y);
    const next = [{}, {}, {}];
    for (const name in p) {
      updateOne(p[name], g[name], m[name], v[name], c1.ref, c2.ref).forEach(
        (array, i) => (next[i][name] = array),
      );
    }
    c1.dispose();
    c2.dispose();
    return [value, ...next];
  };
  const run = mode === "jit" ? jit(wholeStep) : wholeStep;
  const zeros = () => tree.map((x) => np.zeros(x.shape), trained);
  let state = [trained, zeros(), zeros()];
  await jax.blockUntilReady([...state, frozen]);
  return async (i) => {
    const corrections = betas.map((beta) => np.array(1 / (1 - beta ** (i + 1))));
    const [value, ...next] = run(...state, tree.ref(frozen), ...batch(i), ...corrections);
    state = next;
    await jax.blockUntilReady(state);
    return (await value.data())[0];
  };
});
