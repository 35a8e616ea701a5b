/**
 * The process that trains with tfjs. On wasm it has no gradient of an embedding, and its products with a transposed operand
 * are many times slower than others; so there the embedding is a product with a one-hot matrix, and products have a gradient
 * of their own that transposes first. It has Adam, but no AdamW: that is written in its operations.
 */
import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import {
  ADAMW,
  adapterInit,
  gptInit,
  initialValues,
  LORA,
  mlpBatch,
  mlpInit,
  sizeOf,
  tokens,
} from "../problems.ts";
import { serve } from "./serve.ts";

const require = createRequire(import.meta.url);

async function load(backend) {
  if (backend === "webgpu") (await import("./dawn.mjs")).installDawn();
  const tf = require("@tensorflow/tfjs");
  const name = backend === "webgpu" ? "webgpu" : "wasm";
  const loaded = require(`@tensorflow/tfjs-backend-${name}`);
  if (name === "wasm") loaded.setWasmPaths(dirname(require.resolve("@tensorflow/tfjs-backend-wasm")) + sep);
  if (!(await tf.setBackend(name))) throw new Error(`tfjs: its backend ${name} does not start`);
  await tf.ready();
  return tf;
}

await serve(async ({ work, backend }) => {
  const tf = await load(backend);
  const explicit = backend === "cpu";

  const swap = (x) => {
    const axes = x.shape.map((_, i) => i);
    return tf.transpose(x, [...axes.slice(0, -2), axes.at(-1), axes.at(-2)]);
  };
  const matmulBoth = tf.customGrad((a, b, save) => {
    save([a, b]);
    const gradFunc = (dy, [x, y]) => [tf.matMul(dy, swap(y)), tf.matMul(swap(x), dy)];
    return { value: tf.matMul(a, b), gradFunc };
  });
  // customGrad computes all gradients that it declares: what is frozen is captured instead.
  const matmulFrozen = (a, b) =>
    tf.customGrad((x) => ({ value: tf.matMul(x, b), gradFunc: (dy) => tf.matMul(dy, swap(b)) }))(a);
  const kept = [];
  const oneHotTimes = (hot, table) => {
    kept.push(tf.keep(hot));
    return tf.customGrad((t) => ({ value: tf.matMul(hot, t), gradFunc: (dy) => tf.matMul(swap(hot), dy) }))(
      table,
    );
  };
  const isFrozen = (x) => x instanceof tf.Variable && !x.trainable;
  const matmul = (a, b) => {
    if (!explicit) return tf.matMul(a, b);
    return isFrozen(b) ? matmulFrozen(a, b) : matmulBoth(a, b);
  };
  const variables = (inits, trainable) =>
    Object.fromEntries(
      inits.map((init, i) => {
        const value = tf.tensor(initialValues(init, i), init[1]);
        return [
          init[0],
          tf.variable(value, typeof trainable === "boolean" ? trainable : trainable[i], init[0]),
        ];
      }),
    );
  const crossEntropy = (logits, y, classes) =>
    tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(logits), tf.oneHot(y, classes)), -1)));
  const layerNorm = (x, gain, bias) => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const variance = tf.mean(tf.square(centred), -1, true);
    return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, 1e-5))), gain), bias);
  };
  const gelu = (x) => {
    const inner = tf.mul(Math.sqrt(2 / Math.PI), tf.add(x, tf.mul(0.044715, tf.mul(x, tf.mul(x, x)))));
    return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1));
  };

  /** Decoupled weight decay, on matrices alone. */
  function adamW(trained, { lr, betas, eps, weightDecay }) {
    const zeros = () => Object.fromEntries(Object.entries(trained).map(([k, p]) => [k, tf.variable(tf.zerosLike(p), false)])); // prettier-ignore
    const [first, second] = [zeros(), zeros()];
    let t = 0;
    return (gradients) => {
      t++;
      const [c1, c2] = betas.map((beta) => 1 - beta ** t);
      for (const [name, p] of Object.entries(trained)) {
        tf.tidy(() => {
          const g = gradients[name];
          const [m, v] = [first[name], second[name]];
          m.assign(tf.add(tf.mul(m, betas[0]), tf.mul(g, 1 - betas[0])));
          v.assign(tf.add(tf.mul(v, betas[1]), tf.mul(tf.square(g), 1 - betas[1])));
          const start = weightDecay > 0 && p.rank >= 2 ? tf.mul(p, 1 - lr * weightDecay) : p;
          p.assign(tf.sub(start, tf.div(tf.mul(m, lr / c1), tf.add(tf.sqrt(tf.mul(v, 1 / c2)), eps))));
        });
      }
    };
  }

  function mlp() {
    const trained = variables(mlpInit(), true);
    const data = Array.from({ length: 16 }, (_, i) => mlpBatch(i));
    const loss = (i) => {
      let h = tf.tensor(data[i % 16].x, [128, 784]);
      for (let l = 0; l < 3; l++) {
        h = tf.add(matmul(h, trained[`w${l}`]), trained[`b${l}`]);
        if (l < 2) h = tf.relu(h);
      }
      return crossEntropy(h, tf.tensor(data[i % 16].y, [128], "int32"), 10);
    };
    return { trained, settings: { ...ADAMW, betas: [0.9, 0.999], weightDecay: 0 }, loss };
  }

  function gpt() {
    const size = sizeOf(work.size);
    const { layers, dim: d, heads, vocab, batch, length } = size;
    const full = work.method === "full";
    const factors = adapterInit(size, work.method);
    const base = variables(gptInit(size), full);
    const adapter = variables(
      factors.map(({ init }) => init),
      factors.map((factor) => factor.trained),
    );
    const trained = full ? base : Object.fromEntries(Object.entries(adapter).filter(([, p]) => p.trainable));
    const mask = tf.tidy(() => tf.mul(tf.sub(1, tf.linalg.bandPart(tf.ones([length, length]), -1, 0)), -1e9));
    const transposedTable = full ? null : tf.transpose(base.wte);

    const embed = (x) => {
      if (!explicit) return tf.gather(base.wte, x);
      const hot = tf.cast(tf.oneHot(x, vocab), "float32");
      return full ? oneHotTimes(hot, base.wte) : tf.matMul(hot, base.wte);
    };
    const attention = (qkv) => {
      const [q, k, v] = tf
        .split(qkv, 3, 1)
        .map((part) =>
          tf.reshape(tf.transpose(tf.reshape(part, [batch, length, heads, d / heads]), [0, 2, 1, 3]), [
            batch * heads,
            length,
            d / heads,
          ]),
        );
      const products = explicit ? matmul(q, tf.transpose(k, [0, 2, 1])) : tf.matMul(q, k, false, true);
      const scores = tf.add(tf.mul(products, 1 / Math.sqrt(d / heads)), mask);
      const o = tf.reshape(matmul(tf.softmax(scores), v), [batch, heads, length, d / heads]);
      return tf.reshape(tf.transpose(o, [0, 2, 1, 3]), [batch * length, d]);
    };
    const adapted = (x, l) => {
      const of = (name) => adapter[`${l}.${name}`] ?? adapter[name];
      const down = matmul(x, of("A"));
      const up = matmul(of("u") ? tf.mul(down, of("u")) : down, of("B"));
      return tf.mul(of("v") ? tf.mul(up, of("v")) : up, LORA.alpha / LORA.rank);
    };
    const logitsOf = (h) => {
      if (!explicit) return tf.matMul(h, base.wte, false, true);
      return full ? matmul(h, tf.transpose(base.wte)) : matmulFrozen(h, transposedTable);
    };
    const data = Array.from({ length: 16 }, (_, i) => tokens(i, size));
    const loss = (i) => {
      const x = tf.tensor(data[i % 16].x, [batch * length], "int32");
      const y = tf.tensor(data[i % 16].y, [batch * length], "int32");
      let h = tf.reshape(tf.add(tf.reshape(embed(x), [batch, length, d]), base.wpe), [batch * length, d]);
      for (let l = 0; l < layers; l++) {
        const of = (name) => base[`${l}.${name}`];
        const linear = (input, w, b) => tf.add(matmul(input, of(w)), of(b));
        const a = layerNorm(h, of("ln1g"), of("ln1b"));
        let qkv = linear(a, "wqkv", "bqkv");
        if (!full) qkv = tf.add(qkv, adapted(a, l));
        h = tf.add(h, linear(attention(qkv), "wo", "bo"));
        h = tf.add(h, linear(gelu(linear(layerNorm(h, of("ln2g"), of("ln2b")), "w1", "b1")), "w2", "b2"));
      }
      return crossEntropy(logitsOf(layerNorm(h, base.lnfg, base.lnfb)), y, vocab);
    };
    return { trained, settings: full ? ADAMW : { ...ADAMW, lr: LORA.lr, weightDecay: 0 }, loss };
  }

  const { trained, settings, loss } = work.kind === "mlp" ? mlp() : gpt();
  const update = adamW(trained, settings);
  const list = Object.values(trained);
  return async (i) => {
    const value = tf.tidy(() => {
      const { value: result, grads } = tf.variableGrads(() => loss(i), list);
      update(grads);
      return result;
    });
    kept.splice(0).forEach((hot) => hot.dispose());
    const [number] = await value.data();
    value.dispose();
    return number;
  };
});
