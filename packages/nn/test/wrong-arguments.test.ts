/** The errors of modules, losses and optimizers for wrong arguments: one row for each argument of each public function. */
import { grad, key, ones, type Quantization, reference, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as linalg from "@tiedlora/nn/linalg";
import * as optim from "@tiedlora/nn/optim";
import {
  methodsOf,
  type Row,
  testAllCovered,
  testWrongArguments,
} from "../../../test/support/wrong-arguments.ts";

const device = reference();
const options = { device, key: key(1) };
const x = device.tensor([[1, 2, 3, 4]]);
const ids = device.tensor([0, 1], { dtype: "i32" });
const image = ones([1, 2, 4, 4]);
const heads = ones([1, 2, 3, 4]);
const linear = nn.Linear.init(4, 3, options);
const back = nn.Linear.init(3, 4, options);
const { weight } = linear;
const vector = nn.constantParameter([4], 1, device);
const step = (): optim.SGD => optim.sgd([weight], { lr: 0.1 });
const loss = (): Tensor => linear.forward(x).sum();

const how: Quantization = { bits: 4, group: 8, table: "linear" };
const words = nn.Parameter.from(device, new Uint32Array(4), [4, 1], "u32");
const scales = nn.constantParameter([4, 1], 1, device);

const notFloat = [[ids, /i32/]] as const;
const noRate = [[undefined, /undefined/], [Number.NaN, /NaN/], ["0.1", /"0\.1"/], [-1, /-1/], [null, /null/]] as const; // prettier-ignore
const noPart = [["0.5", /"0\.5"/], [-0.1, /-0\.1/], [1, /1/], [Number.NaN, /NaN/]] as const; // prettier-ignore
const noMisspelling = [[{ lr: 0.1, weight_decay: 1 }, /no option "weight_decay"; give lr/]] as const;

/** Rows for a function that creates a module from sizes and options. */
const inits = (
  name: string,
  make: (dim: number, hidden: number, options: nn.InitOptions) => unknown,
): Row[] => [
  [name, [[undefined, /undefined/], [0, /0/], [-1, /-1/], [0.5, /0\.5/], ["4", /"4"/]], (dim) => make(dim, 4, options)], // prettier-ignore
  [name, [[undefined, /undefined/], [0, /0/], [-1, /-1/], [0.5, /0\.5/], ["4", /"4"/]], (dim) => make(4, dim, options)], // prettier-ignore
  [name, "options", (given) => make(4, 4, given)],
  [name, [[undefined, /undefined/], [{ device }, /options\.key: undefined/]], (given) => make(4, 4, given)], // prettier-ignore
];

/** A norm of one's own. */
class OwnNorm extends nn.Norm {
  override forward(x: Tensor): Tensor {
    return this.scaled(x);
  }
}

const rows: readonly Row[] = [
  ...inits("Linear", (a, b, o) => nn.Linear.init(a, b, o)),
  ...inits("Embedding", (a, b, o) => nn.Embedding.init(a, b, o)),
  ["weight", "device", (d) => nn.Linear.init(4, 4, { device: d, key: key(1) })],
  ["Linear", "tensor", (w) => new nn.Linear(w)],
  ["Linear", [[vector, /\[4\].*\[any, any\]/], [x, /Tensor/]], (w) => new nn.Linear(w)], // prettier-ignore
  ["Linear", [[vector, /\[4\].*\[3\]/], [1, /1/]], (bias) => new nn.Linear(weight, bias)], // prettier-ignore
  ["Linear", "name?", (layout) => new nn.Linear(weight, null, layout)],
  ["Linear", "tensor", (y) => linear.forward(y)],
  ["matmul", [[ones([2, 3]), /\[2, 3\]/]], (y) => linear.forward(y)],
  ["Embedding", "tensor", (w) => new nn.Embedding(w)],
  ["Embedding", [[vector, /\[4\].*\[any, any\]/]], (w) => new nn.Embedding(w)],
  ["normalParameter: std", "finite?", (std) => nn.Embedding.init(2, 2, { ...options, std })],
  ["take", "tensor", (y) => new nn.Embedding(weight).forward(y)],
  ["take", [[x, /f32/]], (y) => new nn.Embedding(weight).forward(y)],
  ["dequantize", "tensor", (w) => nn.dequantize(how, w, scales)],
  ["dequantize", "tensor", (s) => nn.dequantize(how, words, s)],
  ["dequantize", [[scales, /f32 \[4, 1\]/]], (w) => nn.dequantize(how, w, scales)],
  ["dequantize", [[vector, /f32 \[4\].*\[4, 1\]/]], (s) => nn.dequantize(how, words, s)],
  ["dequantize", [[vector, /biases are f32 \[4\]/]], (b) => nn.dequantize(how, words, scales, b)],
  ["dequantize", [[{ ...how, bits: 3 }, /3 bits/], [{ ...how, group: 3 }, /groups of 3/]], (q) => nn.dequantize(q, words, scales)], // prettier-ignore
  ["memoryOf", [[undefined, /undefined/], [x, /Tensor/]], (p) => nn.memoryOf(p)], // prettier-ignore
  ["MLP", "tensor", (up) => new nn.MLP(up, back, "relu")],
  ["MLP", "tensor", (down) => new nn.MLP(linear, down, "relu")],
  ["MLP", "name", (activation) => new nn.MLP(linear, back, activation)],
  ["MLP", "name?", (activation) => nn.MLP.init(4, 4, { ...options, activation })],
  ["MLP", "options", (given) => nn.MLP.init(4, 4, given)],
  ["Linear: outFeatures", "count", (hidden) => nn.MLP.init(4, hidden, options)],
  ["GatedMLP", "tensor", (gate) => new nn.GatedMLP(gate, linear, back)],
  ["GatedMLP", "tensor", (up) => new nn.GatedMLP(linear, up, back)],
  ["GatedMLP", "tensor", (down) => new nn.GatedMLP(linear, linear, down)],
  ["GatedMLP", "name?", (activation) => new nn.GatedMLP(linear, linear, back, activation)],
  ["GatedMLP", "options", (given) => nn.GatedMLP.init(4, 4, given)],
  ["CausalSelfAttention", "count", (dim) => new nn.CausalSelfAttention(dim, 2, options)],
  ["CausalSelfAttention", "count", (count) => new nn.CausalSelfAttention(4, count, options)],
  ["CausalSelfAttention", [[3, /3 heads do not divide dim 4/]], (count) => new nn.CausalSelfAttention(4, count, options)], // prettier-ignore
  ["CausalSelfAttention", "options", (given) => new nn.CausalSelfAttention(4, 2, given)],
  ...inits("LayerNorm: dim", (dim) => nn.LayerNorm.init(dim, { device })).slice(0, 1),
  ...inits("RMSNorm: dim", (dim) => nn.RMSNorm.init(dim, { device })).slice(0, 1),
  ["LayerNorm", "options", (given) => nn.LayerNorm.init(4, given)],
  ["RMSNorm", "options", (given) => nn.RMSNorm.init(4, given)],
  ["LayerNorm", "tensor", (w) => new nn.LayerNorm(w)],
  ["LayerNorm", [[weight, /\[3, 4\].*\[any\]/]], (w) => new nn.LayerNorm(w)],
  ["LayerNorm", [[1, /1/], [weight, /\[3, 4\].*\[4\]/]], (bias) => new nn.LayerNorm(vector, bias)], // prettier-ignore
  ["LayerNorm", [["1", /"1"/], [-1, /-1/], [Number.NaN, /NaN/]], (eps) => new nn.LayerNorm(vector, null, eps)], // prettier-ignore
  ["RMSNorm", "tensor", (w) => new nn.RMSNorm(w)],
  ["RMSNorm", [["1", /"1"/], [-1, /-1/], [Number.NaN, /NaN/]], (eps) => new nn.RMSNorm(vector, eps)], // prettier-ignore
  ["Norm", "tensor", (w) => new OwnNorm("Norm", w, 0)],
  ["Norm", [["1", /"1"/], [-1, /-1/], [Number.NaN, /NaN/]], (eps) => new OwnNorm("Norm", vector, eps)], // prettier-ignore
  ...Object.entries({ layerNorm: nn.layerNorm, rmsNorm: nn.rmsNorm }).flatMap(([name, f]): Row[] => [
    [name, "tensor", (y) => f(y)],
    [name, notFloat, (y) => f(y)],
    [name, [["1", /"1"/], [-1, /-1/], [Number.NaN, /NaN/]], (eps) => f(x, eps)], // prettier-ignore
  ]),
  ["dropout", "tensor", (y) => nn.dropout(y, 0.5, key(1))],
  ["dropout", [[undefined, /undefined/], ...noPart], (p) => nn.dropout(x, p, key(1))],
  ["dropout", "key", (k) => nn.dropout(x, 0.5, k)],
  ["Dropout", [[undefined, /undefined/], ...noPart], (p) => new nn.Dropout(p)],
  ["dropout", "key", (k) => new nn.Dropout(0.5).train().forward(x, k)],

  ["uniformParameter", "shape", (shape) => nn.uniformParameter(shape, 1, options)],
  ["uniformParameter", "finite", (bound) => nn.uniformParameter([2], bound, options)],
  ["uniformParameter", "options", (given) => nn.uniformParameter([2], 1, given)],
  ["normalParameter", "shape", (shape) => nn.normalParameter(shape, 1, options)],
  ["normalParameter", "finite", (std) => nn.normalParameter([2], std, options)],
  ["normalParameter", "options", (given) => nn.normalParameter([2], 1, given)],
  ["constantParameter", "shape", (shape) => nn.constantParameter(shape, 1, device)],
  ["constantParameter", "number", (value) => nn.constantParameter([2], value, device)],
  ["parameter", "device", (d) => nn.constantParameter([2], 1, d)],

  ["scaledDotProductAttention", "tensor", (q) => nn.scaledDotProductAttention(q, heads, heads)],
  ["scaledDotProductAttention", "tensor", (k) => nn.scaledDotProductAttention(heads, k, heads)],
  ["scaledDotProductAttention", "tensor", (v) => nn.scaledDotProductAttention(heads, heads, v)],
  ["scaledDotProductAttention", [[x, /\[1, 4\]/], [ones([1, 2, 3, 5]), /\[1, 2, 3, 5\]/], [ones([1, 3, 3, 4]), /\[1, 3, 3, 4\]/]], (k) => nn.scaledDotProductAttention(heads, k, k)], // prettier-ignore
  [
    "scaledDotProductAttention",
    "options",
    (given) => nn.scaledDotProductAttention(heads, heads, heads, given),
  ],
  [
    "scaledDotProductAttention",
    "finite?",
    (scale) => nn.scaledDotProductAttention(heads, heads, heads, { scale }),
  ],
  ["scaledDotProductAttention", [[1, /1/], [ones([5]), /\[5\]/]], (bias) => nn.scaledDotProductAttention(heads, heads, heads, { bias })], // prettier-ignore
  ["ropeTable", "count", (length) => nn.ropeTable(length, [1])],
  ["ropeTable", "values", (frequencies) => nn.ropeTable(2, frequencies)],
  ["rope", "tensor", (y) => nn.rope(y, ones([1, 2]), ones([1, 2]))],
  ["rope", "tensor", (cos) => nn.rope(x, cos, ones([1, 2]))],
  ["rope", "tensor", (sin) => nn.rope(x, ones([1, 2]), sin)],
  ["rope", [[ones([1, 3]), /\[1, 3\]/], [ones([]), /\[\]/], [ones([1, 1]), /\[1, 1\]/]], (cos) => nn.rope(x, cos, ones([1, 2]))], // prettier-ignore
  ["splitHeads", "tensor", (y) => nn.splitHeads(y, 2)],
  ["splitHeads", [[x, /\[1, 4\]/], [ones([1, 1, 3]), /\[1, 1, 3\] into 2/]], (y) => nn.splitHeads(y, 2)], // prettier-ignore
  ["splitHeads", "count", (count) => nn.splitHeads(ones([1, 1, 4]), count)],
  ["mergeHeads", "tensor", (y) => nn.mergeHeads(y)],
  ["mergeHeads", [[x, /\[1, 4\]/]], (y) => nn.mergeHeads(y)],
  ["einsum", [[undefined, /undefined/], [1, /1/], ["i,j->ij", /2 terms for 1 tensors/], ["ij->k", /"k"/], ["i", /\[1, 4\]/], ["i1->i", /"1"/]], (spec) => nn.einsum(spec, x)], // prettier-ignore
  ["einsum", "tensor", (y) => nn.einsum("ij,ij->", x, y)],
  ["conv2d", "tensor", (y) => nn.conv2d(y, ones([1, 2, 2, 2]))],
  ["conv2d", "tensor", (kernel) => nn.conv2d(image, kernel)],
  ["conv2d", [[x, /\[1, 4\]/], [ones([1, 3, 2, 2]), /\[1, 3, 2, 2\]/], [ones([1, 2, 9, 9]), /\[9, 9\]/]], (kernel) => nn.conv2d(image, kernel)], // prettier-ignore
  ["conv2d", "options", (given) => nn.conv2d(image, ones([1, 2, 2, 2]), given)],
  ["conv2d", "count?", (stride) => nn.conv2d(image, ones([1, 2, 2, 2]), { stride })],
  ["conv2d", "count?", (padding) => nn.conv2d(image, ones([1, 2, 2, 2]), { padding })],
  ...Object.entries({ maxPool2d: nn.maxPool2d, avgPool2d: nn.avgPool2d }).flatMap(([name, f]): Row[] => [
    [name, "tensor", (y) => f(y, 2)],
    [name, [[x, /\[1, 4\]/]], (y) => f(y, 2)],
    [name, "count", (size) => f(image, size)],
    [name, "count?", (stride) => f(image, 2, stride)],
  ]),

  ["crossEntropy", "tensor", (logits) => nn.crossEntropy(logits, ids)],
  ["crossEntropy", "tensor", (targets) => nn.crossEntropy(ones([2, 4]), targets)],
  ["crossEntropy", [[x, /f32/], [ones([3], "i32"), /\[3\]/]], (targets) => nn.crossEntropy(ones([2, 4]), targets)], // prettier-ignore
  ["crossEntropy", [[ones([2, 4], "i32"), /i32/], [ones([]), /\[\]/]], (logits) => nn.crossEntropy(logits, ids)], // prettier-ignore
  ...(["hidden", "targets", "mask"] as const).map((at): Row => [
    "chunkedCrossEntropy",
    at === "mask"
      ? [
          [1, /1/],
          [ones([3]), /\[3\]/],
        ]
      : "tensor",
    (given) => {
      const [hidden, targets] = [at === "hidden" ? given : ones([2, 3]), at === "targets" ? given : ids];
      const head = (rows: Tensor): Tensor => rows.matmul(ones([3, 4]));
      return nn.chunkedCrossEntropy(hidden, head, targets, {
        rows: 1,
        ...(at === "mask" && { mask: given }),
      });
    },
  ]),
  ["chunkedCrossEntropy", "function", (head) => nn.chunkedCrossEntropy(ones([2, 3]), head, ids, { rows: 1 })],
  ["chunkedCrossEntropy", [[{ rows: 0 }, /rows.*0/], [{ rows: 1.5 }, /rows.*1\.5/], [{}, /rows.*undefined/], [{ row: 1 }, /no option "row"/]], (given) => nn.chunkedCrossEntropy(ones([2, 3]), (rows) => rows.matmul(ones([3, 4])), ids, given)], // prettier-ignore
  ["crossEntropy", "options", (given) => nn.crossEntropy(ones([2, 4]), ids, given)],
  ["crossEntropy", [[{ ignore_index: 1 }, /no option "ignore_index"; give mask, ignoreIndex/]], (given) => nn.crossEntropy(ones([2, 4]), ids, given)], // prettier-ignore
  ["crossEntropy", [[1, /1/], [ones([3]), /\[3\]/]], (mask) => nn.crossEntropy(ones([2, 4]), ids, { mask })], // prettier-ignore
  ["crossEntropy", [[0.5, /0\.5/], ["1", /"1"/], [Number.NaN, /NaN/]], (ignoreIndex) => nn.crossEntropy(ones([2, 4]), ids, { ignoreIndex })], // prettier-ignore
  ...Object.entries({ mse: nn.mse, binaryCrossEntropy: nn.binaryCrossEntropy }).flatMap(
    ([name, f]): Row[] => [
      [name, "tensor", (y) => f(y, x)],
      [name, "tensor", (y) => f(x, y)],
    ],
  ),
  ["mse", notFloat, (y) => nn.mse(y, y)],
  ["binaryCrossEntropy", [[ones([2]), /\[2\]/], ...notFloat], (y) => nn.binaryCrossEntropy(x, y)],

  ["freeze", [[null, /null/], ["weight", /"weight"/], [1, /1/]], (match) => linear.freeze(match)], // prettier-ignore
  ["unfreeze", [[null, /null/], ["weight", /"weight"/], [1, /1/]], (match) => linear.unfreeze(match)], // prettier-ignore
  ["train", [["off", /"off"/], [0, /0/], [null, /null/]], (on) => linear.train(on)], // prettier-ignore
  ["loadStateDict", "record", (values) => linear.loadStateDict(values)],
  ["loadStateDict", [[{}, /an object \{\}/], [new Map(), /missing \[weight, bias\]/], [new Map<string, unknown>([["weight", new Array(12)], ["bias", [1, 2, 3]]]), /weight: value 0: undefined/]], (values) => linear.loadStateDict(values)], // prettier-ignore

  ["SGD", "tensors", (parameters) => optim.sgd(parameters, { lr: 1 })],
  ["SGD", [[[x], /Tensor/], [weight, /Tensor/]], (parameters) => optim.sgd(parameters, { lr: 1 })], // prettier-ignore
  ["SGD", "options", (given) => optim.sgd([weight], given)],
  ["SGD", [[undefined, /undefined/], ...noMisspelling], (given) => optim.sgd([weight], given)],
  ["SGD", noRate, (lr) => optim.sgd([weight], { lr })],
  ["SGD", noRate.slice(1), (momentum) => optim.sgd([weight], { lr: 1, momentum: momentum ?? "null" })],
  ["AdamW", "tensors", (parameters) => optim.adamW(parameters, { lr: 1 })],
  ["AdamW", "options", (given) => optim.adamW([weight], given)],
  ["AdamW", [[undefined, /undefined/], ...noMisspelling], (given) => optim.adamW([weight], given)],
  ["AdamW", noRate, (lr) => optim.adamW([weight], { lr })],
  ["AdamW", [[0.9, /0\.9/], [[0.9], /\[0\.9\]/], [[0.9, 1], /1/], ["ab", /"ab"/]], (betas) => optim.adamW([weight], { lr: 1, betas })], // prettier-ignore
  ["step", [[null, /null/], [1, /1/], ["x", /"x"/]], (y) => step().step(y)], // prettier-ignore
  ["step", "tensors?", (also) => step().step(loss(), also)],
  ["grad", [[x, /\[1, 4\]/]], (y) => step().step(y)],
  ["accumulate", "tensor", (y) => step().accumulate(y)],
  ["SGD", "options", (state) => step().load(state)],
  ["SGD", [[{}, /undefined/], [{ step: 0, tensors: {} }, /an object \{\}/], [{ step: 0.5, tensors: new Map() }, /0\.5/]], (state) => step().load(state)], // prettier-ignore
  ["constant", "number", (lr) => optim.constant(lr)],
  ["constant", "options", (given) => optim.constant(1, given)],
  ...Object.entries({ linear: optim.linear, cosine: optim.cosine }).flatMap(([name, f]): Row[] => [
    [name, [[undefined, /undefined/], ["1", /"1"/], [-1, /-1/], [Number.NaN, /NaN/]], (lr) => f(lr, { steps: 10 })], // prettier-ignore
    [name, "options", (given) => f(1, given)],
    [name, [[undefined, /undefined/], [{}, /undefined/], [{ steps: 1, warm_up: 1 }, /no option "warm_up"/]], (given) => f(1, given)], // prettier-ignore
    [name, "number", (steps) => f(1, { steps })],
    [name, "number?", (warmup) => f(1, { steps: 10, warmup })],
    [name, "number?", (end) => f(1, { steps: 10, end })],
  ]),
];

/** The rows of functions of one matrix or of two. */
const algebra: readonly Row[] = [
  ...Object.entries({
    cholesky: linalg.cholesky,
    inverse: linalg.inverse,
    qr: linalg.qr,
    svd: linalg.svd,
  }).flatMap(([name, f]): Row[] => [
    [name, "tensor", (a) => f(a)],
    [name, [[vector, /\[4\]/], [ids, /i32/], [ones([2, 0]), /\[2, 0\]/]], (a) => f(a)], // prettier-ignore
  ]),
  ["cholesky", [[x, /\[1, 4\] is not square/]], (a) => linalg.cholesky(a)],
  ["inverse", [[x, /\[1, 4\] is not square/]], (a) => linalg.inverse(a)],
  ["qr", [[x, /1 rows and 4 columns/]], (a) => linalg.qr(a)],
  ...Object.entries({ solve: linalg.solve, solveTriangular: linalg.solveTriangular }).flatMap(
    ([name, f]): Row[] => [
      [name, "tensor", (a) => f(a, ones([2, 2]))],
      [name, "tensor", (b) => f(ones([2, 2]), b)],
      [name, [[x, /\[1, 4\] is not square/]], (a) => f(a, ones([1, 1]))],
      [name, [[ones([3, 1]), /\[3, 1\] has 3 rows.*\[2, 2\] has 2/], [ones([2]), /\[2\] is no matrix/]], (b) => f(ones([2, 2]), b)], // prettier-ignore
    ],
  ),
  ["solve", [[ones([3, 2, 1]), /do not broadcast/]], (b) => linalg.solve(ones([2, 2, 2]), b)],
  ["solveTriangular", "options", (given) => linalg.solveTriangular(ones([2, 2]), ones([2, 1]), given)],
  ["solveTriangular", "name?", (side) => linalg.solveTriangular(ones([2, 2]), ones([2, 1]), { side })],
  ["solveTriangular", [["yes", /"yes"/]], (transpose) => linalg.solveTriangular(ones([2, 2]), ones([2, 1]), { transpose })], // prettier-ignore
];

const moving: readonly Row[] = [
  ["sort", "tensor", (y) => nn.sort(y)],
  ["sort", "options", (given) => nn.sort(x, given)],
  ["sort", "name?", (order) => nn.sort(x, { order })],
  ["sort", [[ones([]), /\[\]/], [ones([2]).gt(0), /bool/]], (y) => nn.sort(y)], // prettier-ignore
  ["sort", [[2, /2/], ["0", /"0"/]], (axis) => nn.sort(x, { axis })], // prettier-ignore
  ["topK", "tensor", (y) => nn.topK(y, 1)],
  ["topK", [[5, /5 for axis -1 of \[1, 4\]; give a whole number in 0 … 4/], [-1, /-1/], [1.5, /1\.5/], [undefined, /undefined/], ["2", /2/]], (k) => nn.topK(x, k)], // prettier-ignore
  ["topK", "options", (given) => nn.topK(x, 1, given)],
  ["topK", "name?", (order) => nn.topK(x, 1, { order })],
  ["roll", "tensor", (y) => nn.roll(y, 1)],
  ["roll", [[undefined, /undefined/], [0.5, /0\.5/], ["1", /"1"/], [[1, 2], /2 shifts for 1 axes/]], (by) => nn.roll(x, by)], // prettier-ignore
  ["roll", [[2, /2/], ["0", /"0"/], [null, /null/]], (axis) => nn.roll(x, 1, axis)], // prettier-ignore
  ["sliceScatter", "tensor", (y) => nn.sliceScatter(y, 1, 0, x)],
  ["sliceScatter", "tensor", (y) => nn.sliceScatter(x, 1, 0, y)],
  ["sliceScatter", [[2, /2/], [-1, /-1/], ["0", /"0"/]], (axis) => nn.sliceScatter(x, axis, 0, x)], // prettier-ignore
  ["sliceScatter", [[1, /1/], [0.5, /0\.5/], [undefined, /undefined/]], (start) => nn.sliceScatter(x, 1, start, x)], // prettier-ignore
  ["scatterSet", "tensor", (y) => nn.scatterSet(y, 1, ids, ids)],
  ["scatterSet", "tensor", (index) => nn.scatterSet(x, 1, index, x)],
  ["scatterSet", "tensor", (y) => nn.scatterSet(x, 1, ids, y)],
  ["scatterSet", [[x, /f32/], [ids, /index \[2\] and values \[1, 4\]/]], (index) => nn.scatterSet(x, 1, index, x)], // prettier-ignore
  ["scatterSet", [[ones([2, 1]), /index \[2, 1\] must have the rank of \[1, 4\] and not exceed it/]], (y) => nn.scatterSet(x, 1, ones([2, 1], "i32"), y)], // prettier-ignore
  ["scatterSet", "axis", (axis) => nn.scatterSet(x, axis, ones([1, 4], "i32"), x)],
  ["randomNormal", "key", (k) => nn.randomNormal(k, [2])],
  ["uniform", "shape", (shape) => nn.randomGumbel(key(1), shape)],
  ["uniform", "shape", (shape) => nn.randomNormal(key(1), shape)],
  ["randomNormal", "options", (given) => nn.randomNormal(key(1), [2], given)],
  ["randomNormal", "finite?", (mean) => nn.randomNormal(key(1), [2], { mean })],
  ["randomNormal", "finite?", (std) => nn.randomNormal(key(1), [2], { std })],
  ["randomGumbel", "key", (k) => nn.randomGumbel(k, [2])],
  ["vjp", "tensors", (y) => nn.vjp(y, [x], x)],
  ["vjp", "tensors", (wrt) => nn.vjp(x, wrt, x)],
  ["vjp", "tensors", (g) => nn.vjp(x, [x], g)],
  ["vjp", [[ids, /i32/]], (y) => nn.vjp(y, [x], ids)], // prettier-ignore
  ["vjp", [[[x, x], /1 outputs and 2 cotangents/], [ids, /\[1, 4\] is \[2\] i32/]], (g) => nn.vjp(x, [x], g)], // prettier-ignore
  ["custom", "function", (forward) => nn.custom(forward, { vjp: (g) => [g] })],
  ["custom", "options", (rule) => nn.custom((y: Tensor) => y, rule)],
  ["custom: vjp", "function", (rule) => nn.custom((y: Tensor) => y, { vjp: rule })],
  ["custom: inputs", "tensor", (y) => nn.custom((one: Tensor) => one, { vjp: (g) => [g] })(y)],
  ["custom: the result of forward", "tensor", (y) => nn.custom(() => y, { vjp: () => [] })()],
  ["custom", [[undefined, /gave undefined for inputs of shapes \[1, 4\]/], [[], /gave \[\]/], [[vector], /gave \[\[4\]\]/]], (parts) => grad(nn.custom((y: Tensor) => y, { vjp: () => parts })(x).sum(), [x])], // prettier-ignore
];

const optimizers = { Lion: optim.lion, Adafactor: optim.adafactor, Muon: optim.muon, SM3: optim.sm3 };

const training: readonly Row[] = [
  ...Object.entries(optimizers).flatMap(([name, f]): Row[] => [
    [name, "tensors", (parameters) => f(parameters, { lr: 1 })],
    [name, "options", (given) => f([weight], given)],
    [name, [[undefined, /undefined/], ...noMisspelling], (given) => f([weight], given)],
    [name, noRate, (lr) => f([weight], { lr })],
  ]),
  ...Object.entries({ Lion: optim.lion, Adafactor: optim.adafactor, Muon: optim.muon }).map(
    ([name, f]): Row => [name, noRate.slice(1), (decay) => f([weight], { lr: 1, weightDecay: decay ?? "null" })], // prettier-ignore
  ),
  ...Object.entries({ Lion: optim.lion, Muon: optim.muon }).map(
    ([name, f]): Row => [name, [[[0.9, 1], /1/], [0.9, /0\.9/]], (betas) => f([weight], { lr: 1, betas })], // prettier-ignore
  ),
  ["Muon", [[1, /1/], [-0.1, /-0\.1/]], (momentum) => optim.muon([weight], { lr: 1, momentum })], // prettier-ignore
  ["Muon", "name?", (scale) => optim.muon([weight], { lr: 1, scale })],
  ["Muon", [["yes", /"yes"/]], (nesterov) => optim.muon([weight], { lr: 1, nesterov })],
  ["SM3", [[1, /1/], [Number.NaN, /NaN/]], (momentum) => optim.sm3([weight], { lr: 1, momentum })], // prettier-ignore
  ["Adafactor", [[0, /0/], [Number.NaN, /NaN/]], (decay) => optim.adafactor([weight], { lr: 1, decay })], // prettier-ignore
  ["Adafactor", [[1, /1/], [[1], /1/], [[0, 1], /0/]], (eps) => optim.adafactor([weight], { lr: 1, eps })], // prettier-ignore
  ["Adafactor", [[0, /0/]], (clipUpdate) => optim.adafactor([weight], { lr: 1, clipUpdate })],
  ["Adafactor", [["yes", /"yes"/]], (relative) => optim.adafactor([weight], { lr: 1, relative })],
  ["EMA", "tensors", (parameters) => new optim.EMA(parameters)],
  ["EMA", "options", (given) => new optim.EMA([weight], given)],
  ["EMA: decay", [[1, /1/], [-1, /-1/], [Number.NaN, /NaN/]], (decay) => new optim.EMA([weight], { decay })], // prettier-ignore
  ["EMA: warmup", [["yes", /"yes"/]], (warmup) => new optim.EMA([weight], { warmup })],
  ["EMA", [[undefined, /undefined/], [back.weight, /not averaged/]], (p) => new optim.EMA([weight]).average(p)], // prettier-ignore
  ["apply", [[undefined, /undefined/], [x, /Tensor/], [[], /\[\]/]], (gradients) => step().apply(gradients)], // prettier-ignore
];

const all = [...training, ...rows, ...algebra, ...moving];
testWrongArguments(all);

testAllCovered(
  new Map([
    ...Object.entries(nn),
    ...Object.entries(linalg),
    ...Object.entries(optim),
    ...methodsOf("", nn.Module),
    ...methodsOf("", optim.Optimizer),
  ]),
  all,
  {
    Parameter: "of @tiedlora/core",
    QuantizedParameter: "as dequantize, which its constructor calls",
    Module: "a base class",
    Optimizer: "a base class",
    checkMask: "what the setter of a mask uses",
    sgd: "as SGD",
    adamW: "as AdamW",
    lion: "as Lion",
    adafactor: "as Adafactor",
    muon: "as Muon",
    sm3: "as SM3",
    namedParameters: "takes the prefix of paths, which is anything that goes into text",
    namedModules: "takes the prefix of paths",
    trace: "what step does before it runs",
    load: "called above; its errors begin with the optimizer's name",
    number: "for rules",
    numbers: "for rules",
  },
);
