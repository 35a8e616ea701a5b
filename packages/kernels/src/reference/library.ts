/** The specification of the library calls (matmul, attention, its gradient, gather and scatterAdd), in float64. */
import type { LibraryCall, LibraryName, LibraryParams, Operand } from "../kernel.ts";
import { product } from "../shape.ts";
import { dequantized, elements, INVALID, offsets } from "./elements.ts";
import { epilogueRunner } from "./loop.ts";

type Buffers = readonly ArrayBuffer[];
type CallOf<K extends LibraryName> = Extract<LibraryCall, { name: K }>;
type Runner<K extends LibraryName> = (call: CallOf<K>, buffers: Buffers, scalars: ArrayLike<number>) => void;

/** Copies all elements of an operand over `shape` into a contiguous array. */
function read(operand: Operand, shape: readonly number[], buffers: Buffers): Float64Array {
  const data = operand.quantized
    ? dequantized(operand, operand.quantized, buffers)
    : elements(buffers[operand.buffer]!, operand.dtype);
  const out = new Float64Array(product(shape));
  const from = offsets(operand, shape, 0, operand.view.offset);
  for (let i = 0; i < out.length; i++) out[i] = from[i] === INVALID ? 0 : data.get(from[i]!);
  return out;
}

function write(operand: Operand, shape: readonly number[], buffers: Buffers, values: Float64Array): void {
  const data = elements(buffers[operand.buffer]!, operand.dtype);
  offsets(operand, shape, 0, operand.view.offset).forEach((at, i) => {
    if (at !== INVALID) data.set(at, values[i]!);
  });
}

/** C += A·B for contiguous A [m, k], B [k, n], C [m, n]. */
function multiply(a: Float64Array, b: Float64Array, c: Float64Array, m: number, n: number, k: number): void {
  for (let i = 0; i < m; i++) {
    for (let p = 0; p < k; p++) {
      const x = a[i * k + p]!;
      const [row, out] = [p * n, i * n];
      for (let j = 0; j < n; j++) c[out + j]! += x * b[row + j]!;
    }
  }
}

const matmul: Runner<"matmul"> = ({ params, inputs, outputs }, buffers, scalars) => {
  const { batch, m, n, k } = params;
  const c = new Float64Array(product(batch) * m * n);
  k.forEach((depth, term) => {
    const a = read(inputs[2 * term]!, [...batch, m, depth], buffers);
    const b = read(inputs[2 * term + 1]!, [...batch, depth, n], buffers);
    for (let i = 0; i < product(batch); i++) {
      const [x, y] = [
        a.subarray(i * m * depth, (i + 1) * m * depth),
        b.subarray(i * depth * n, (i + 1) * depth * n),
      ];
      multiply(x, y, c.subarray(i * m * n, (i + 1) * m * n), m, n, depth);
    }
  });
  if (!params.epilogue) return write(outputs[0]!, [...batch, m, n], buffers, c);
  const run = epilogueRunner(params.epilogue, [...batch, m, n], buffers, scalars);
  for (let row = 0; row < product(batch) * m; row++) run(row, c.subarray(row * n, (row + 1) * n));
};

/** The softmax probabilities of one query over all keys (0 for masked keys), and the log of the sum of exponentials. */
function attend(
  params: LibraryParams["attention"],
  query: Float64Array,
  keys: Float64Array,
  bias: Float64Array | undefined,
  position: number,
): { p: Float64Array; logSum: number } {
  const { kv, d, causal, scale } = params;
  const scores = new Float64Array(kv).fill(-Infinity);
  for (let j = 0; j < kv; j++) {
    if (causal && j > position + kv - params.q) continue;
    let dot = 0;
    for (let x = 0; x < d; x++) dot += query[x]! * keys[j * d + x]!;
    scores[j] = scale * dot + (bias === undefined ? 0 : bias[j]!);
  }
  const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = scores.reduce((s, x) => s + Math.exp(x - max), 0);
  return { p: scores.map((x) => Math.exp(x - max) / sum), logSum: max + Math.log(sum) };
}

/** The operands of an attention call as contiguous arrays; `keyHead` maps batch and query head to an index in [batch · kvHeads]. */
function attentionInputs(params: LibraryParams["attention"], inputs: readonly Operand[], buffers: Buffers) {
  const { batch, heads, kvHeads, q, kv, d } = params;
  const rest = [...inputs];
  const take = (...shape: number[]): Float64Array => read(rest.shift()!, shape, buffers);
  const [Q, K, V] = [take(batch, heads, q, d), take(batch, kvHeads, kv, d), take(batch, kvHeads, kv, d)];
  const bias = params.bias ? take(batch, heads, q, kv) : undefined;
  const [O, , dO] =
    rest.length > 0 ? [take(batch, heads, q, d), take(batch, heads, q), take(batch, heads, q, d)] : [];
  const keyHead = (b: number, h: number): number => b * kvHeads + Math.floor(h / (heads / kvHeads));
  return { Q, K, V, bias, O, dO, keyHead };
}

const attention: Runner<"attention"> = ({ params, inputs, outputs }, buffers) => {
  const { batch, heads, q, kv, d } = params;
  const { Q, K, V, bias, keyHead } = attentionInputs(params, inputs, buffers);
  const O = new Float64Array(batch * heads * q * d);
  const L = new Float64Array(batch * heads * q);
  for (let row = 0; row < L.length; row++) {
    const [i, h, b] = [row % q, Math.floor(row / q) % heads, Math.floor(row / q / heads)];
    const head = keyHead(b, h) * kv * d;
    const biasRow = bias?.subarray(row * kv, (row + 1) * kv);
    const { p, logSum } = attend(params, Q.subarray(row * d), K.subarray(head), biasRow, i);
    multiply(p, V.subarray(head), O.subarray(row * d), 1, d, kv);
    L[row] = logSum;
  }
  write(outputs[0]!, [batch, heads, q, d], buffers, O);
  write(outputs[1]!, [batch, heads, q], buffers, L);
};

const attentionGrad: Runner<"attentionGrad"> = ({ params, inputs, outputs }, buffers) => {
  const { batch, heads, kvHeads, q, kv, d, scale } = params;
  const { Q, K, V, bias, O, dO, keyHead } = attentionInputs(params, inputs, buffers);
  const [dQ, dK, dV] = [new Float64Array(Q.length), new Float64Array(K.length), new Float64Array(V.length)];
  for (let row = 0; row < batch * heads * q; row++) {
    const [i, h, b] = [row % q, Math.floor(row / q) % heads, Math.floor(row / q / heads)];
    const head = keyHead(b, h) * kv * d;
    const biasRow = bias?.subarray(row * kv, (row + 1) * kv);
    const { p } = attend(params, Q.subarray(row * d), K.subarray(head), biasRow, i);
    let delta = 0; // Σ_j p_j dp_j = dO · O
    for (let x = 0; x < d; x++) delta += dO![row * d + x]! * O![row * d + x]!;
    for (let j = 0; j < kv; j++) {
      const key = head + j * d;
      let dp = 0;
      for (let x = 0; x < d; x++) dp += dO![row * d + x]! * V[key + x]!;
      const ds = p[j]! * (dp - delta) * scale;
      for (let x = 0; x < d; x++) {
        dQ[row * d + x]! += ds * K[key + x]!;
        dK[key + x]! += ds * Q[row * d + x]!;
        dV[key + x]! += p[j]! * dO![row * d + x]!;
      }
    }
  }
  write(outputs[0]!, [batch, heads, q, d], buffers, dQ);
  write(outputs[1]!, [batch, kvHeads, kv, d], buffers, dK);
  write(outputs[2]!, [batch, kvHeads, kv, d], buffers, dV);
};

const gather: Runner<"gather"> = ({ params, inputs, outputs }, buffers) => {
  const { rows, cols, count } = params;
  const table = read(inputs[0]!, [rows, cols], buffers);
  const missing =
    inputs[0]!.dtype === "i32" || inputs[0]!.dtype === "u32" || inputs[0]!.dtype === "bool" ? 0 : NaN;
  const out = new Float64Array(count * cols).fill(missing);
  read(inputs[1]!, [count], buffers).forEach((row, i) => {
    if (row >= 0 && row < rows) out.set(table.subarray(row * cols, (row + 1) * cols), i * cols);
  });
  write(outputs[0]!, [count, cols], buffers, out);
};

const scatterAdd: Runner<"scatterAdd"> = ({ params, inputs, outputs }, buffers) => {
  const { rows, cols, count } = params;
  const values = read(inputs[1]!, [count, cols], buffers);
  const out = new Float64Array(rows * cols);
  read(inputs[0]!, [count], buffers).forEach((row, i) => {
    if (row < 0 || row >= rows) return;
    for (let x = 0; x < cols; x++) out[row * cols + x]! += values[i * cols + x]!;
  });
  write(outputs[0]!, [rows, cols], buffers, out);
};

const RUN: { readonly [K in LibraryName]: Runner<K> } = {
  matmul,
  attention,
  attentionGrad,
  gather,
  scatterAdd,
};

/** Runs one library call over the program's buffers. */
export function runLibrary(call: LibraryCall, buffers: Buffers, scalars: ArrayLike<number>): void {
  (RUN[call.name] as Runner<LibraryName>)(call, buffers, scalars);
}
