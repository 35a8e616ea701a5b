/** The errors of tensors, parameters and random numbers for wrong arguments: one row for each argument of each public function. */
import * as kernels from "@tiedlora/kernels";
import * as safetensors from "@tiedlora/safetensors";
import * as core from "@tiedlora/core";
import {
  arange,
  assign,
  checkpoint,
  checkpointIn,
  concat,
  explain,
  full,
  grad,
  iota,
  Key,
  key,
  normalArray,
  ones,
  Parameter,
  permutation,
  random,
  realize,
  reference,
  stack,
  Tensor,
  uniformArray,
  where,
  zeros,
} from "@tiedlora/core";
import {
  methodsOf,
  type Row,
  testAllCovered,
  testWrongArguments,
} from "../../../test/support/wrong-arguments.ts";

const device = reference();
const x = device.tensor([[1, 2, 3], [4, 5, 6]]); // prettier-ignore
const ints = device.tensor([0, 1], { dtype: "i32" });
const bools = x.gt(2);
const index = device.tensor([[0, 1, 0]], { dtype: "i32" });
const elsewhere = reference().tensor([1, 2, 3]);
const p = Parameter.from(device, [1, 2], [2], "f32", "weight");

/** An array that holds itself. */
const endless: unknown[] = [];
endless.push(endless);

/** A tensor of another type, shape or device is refused with what it is. */
const notFloat = [[ints, /i32/], [bools.reshape([6]).slice([0, 2]), /bool/]] as const; // prettier-ignore
const notIndex = [[x, /f32/], [bools, /bool/]] as const; // prettier-ignore
const misfits = [[ones([2]), /\[2\]/], [ones([4, 1, 2]), /\[4, 1, 2\]/]] as const; // prettier-ignore
const strangers = [[elsewhere, /two devices/]] as const;

const ELEMENTWISE = ["add", "sub", "mul", "div", "mod", "maximum", "minimum", "pow", "lt", "le", "gt", "ge", "eq", "ne", "logAddExp"] as const; // prettier-ignore
const FLOATS_ALONE = ["exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "erf", "floor", "sigmoid", "silu", "softplus", "gelu", "mean", "variance", "logSumExp"] as const; // prettier-ignore
const REDUCTIONS = ["sum", "prod", "max", "min", "mean", "variance", "logSumExp"] as const;
const NOT_BOOL = ["sum", "prod", "max", "min", "neg", "abs"] as const;

const rows: readonly Row[] = [
  ...ELEMENTWISE.flatMap((name): Row[] => [
    [name, "operand", (y) => x[name](y)],
    [name, [...misfits, [ints.slice([0, 1]), /i32/]], (y) => x[name](y)],
  ]),
  ...(["and", "or", "xor"] as const).flatMap((name): Row[] => [
    [name, "operand", (y) => bools[name](y)],
    [name, [[2, /2/], [0.5, /0\.5/], [x, /f32/]], (y) => bools[name](y)], // prettier-ignore
  ]),
  ["tensors are on two devices", strangers, (y) => x.add(y)],
  ["tensors are on two devices", strangers, (y) => x.take(elsewhere.cast("i32")).add(y)],
  ["add", [[0.5, /0\.5 is no i32/], [2 ** 31, /2147483648 is no i32/], [Number.NaN, /NaN is no i32/]], (y) => ints.add(y)], // prettier-ignore
  ["not", [[x, /f32/], [ints, /i32/]], (y: Tensor) => y.not()], // prettier-ignore
  ...FLOATS_ALONE.map((name): Row => [name, notFloat, (y: Tensor) => y[name]()]),
  ...NOT_BOOL.map((name): Row => [name, [[bools, /bool/]], (y: Tensor) => y[name]()]),
  ["pow", notFloat, (y: Tensor) => y.pow(1.5)],
  ["gelu", "name?", (how) => x.gelu(how)],
  ["clamp", [[undefined, /undefined/], ["1", /"1"/], [x, /Tensor/]], (low) => x.clamp(low)], // prettier-ignore
  ["clamp", [["1", /"1"/], [x, /Tensor/]], (high) => x.clamp(0, high)], // prettier-ignore
  ["cast", "dtype", (dtype) => x.cast(dtype)],
  ...REDUCTIONS.flatMap((name): Row[] => [
    [name, "axes", (axes) => x[name](axes)],
    [name, [[[0, 0], /\[0, 0\] repeat/]], (axes) => x[name](axes)],
    [name, "options", (options) => x[name](0, options)],
    [name, [[{ keepDims: true }, /no option "keepDims"; give keepdims/]], (options) => x[name](0, options)],
  ]),
  ["variance", "number?", (correction) => x.variance(0, { correction })],
  ...(["argmax", "argmin"] as const).flatMap((name): Row[] => [
    [name, "axis?", (axis) => x[name](axis)],
    [name, "options", (options) => x[name](0, options)],
  ]),
  ...(["softmax", "logSoftmax", "cumsum"] as const).map((name): Row => [
    name,
    "axis?",
    (axis) => x[name](axis),
  ]),
  ...(["softmax", "logSoftmax"] as const).map((name): Row => [name, notFloat, (y: Tensor) => y[name](0)]),
  ["reshape", "resize", (shape) => x.reshape(shape)],
  ["reshape", [[[4], /6 elements.*\[4\]/], [[-1, -1], /\[-1, -1\]/], [[-1, 4], /\[-1, 4\]/]], (shape) => x.reshape(shape)], // prettier-ignore
  ["permute", [[undefined, /undefined/], ["01", /"01"/], [1, /1/], [[undefined, 1], /undefined/], [[0.5, 1], /0\.5/], [["0", 1], /"0"/]], (order) => x.permute(order)], // prettier-ignore
  ["permute", [[[0], /\[0\]/], [[0, 0], /\[0, 0\]/], [[0, 2], /axis 2/]], (order) => x.permute(order)], // prettier-ignore
  ["transpose", "axis?", (a) => x.transpose(a)],
  ["transpose", "axis?", (b) => x.transpose(0, b)],
  ["expand", "shape", (shape) => x.expand(shape)],
  ["expand", [[[3], /\[3\]/], [[2, 4], /\[2, 4\]/]], (shape) => x.expand(shape)], // prettier-ignore
  ["squeeze", "axis", (axis) => x.squeeze(axis)],
  ["squeeze", [[0, /axis 0 of \[2, 3\]/]], (axis) => x.squeeze(axis)],
  ["unsqueeze", "axis", (axis) => x.unsqueeze(axis)],
  ["slice", [[1, /1/], ["01", /"01"/], [{}, /an object/], [[0, 9], /9/], [[0.5, 1], /0\.5/], [[1], /undefined/], [[0, 2, 0], /0, 2, 0/], [[0, 2, -1], /0, 2, -1/]], (range) => x.slice(range)], // prettier-ignore
  ["narrow", "axis", (axis) => x.narrow(axis, 0, 1)],
  ["narrow", "count", (start) => x.narrow(1, start, 1)],
  ["narrow", "count", (length) => x.narrow(1, 0, length)],
  ["narrow", [[3, /3/]], (length) => x.narrow(1, 1, length)],
  ["pad", [[undefined, /undefined/], [1, /1/], [[1, 1], /\[1,1\]/], [[[1, 1]], /\[\[1,1\]\]/], [[[0, -1], [0, 0]], /-1/], [[[0, 0.5], [0, 0]], /0\.5/], [[["1", 0], [0, 0]], /"1"/]], (widths) => x.pad(widths)], // prettier-ignore
  ["flip", "axes", (axes) => x.flip(axes)],
  ["split", [[undefined, /undefined/], [0, /0/], [-1, /-1/], [0.5, /0\.5/], ["1", /"1"/], [[1], /\[1\]/], [[3, -1], /\[3, -1\]/], [[0.5, 1.5], /\[0\.5, 1\.5\]/], [["2"], /\["2"\]/]], (sizes) => x.split(sizes)], // prettier-ignore
  ["split", "axis?", (axis) => x.split(1, axis)],
  ["tril", "whole?", (diagonal) => x.tril(diagonal)],
  ["triu", "whole?", (diagonal) => x.triu(diagonal)],
  ["tril", [[p, /\[2\]/]], (y: Tensor) => y.tril()],
  ["matmul", "tensor", (y) => x.matmul(y)],
  [
    "matmul",
    [...misfits, [x, /\[2, 3\]/], [ints, /\[2\]/], [ones([3, 2], "i32"), /i32/]],
    (y) => x.matmul(y),
  ],
  ["take", "tensor", (y) => x.take(y)],
  ["take", notIndex, (y) => x.take(y)],
  ["take", [[full([], 1), /\[\]/]], (y: Tensor) => y.take(ints)],
  ["gather", "axis", (axis) => x.gather(axis, index)],
  ["gather", "tensor", (y) => x.gather(0, y)],
  ["gather", [...notIndex, [ints, /\[2\]/]], (y) => x.gather(0, y)],
  ["scatterAdd", "axis", (axis) => x.scatterAdd(axis, index, ones([1, 3]))],
  ["scatterAdd", "tensor", (y) => x.scatterAdd(0, y, ones([1, 3]))],
  ["scatterAdd", notIndex, (y) => x.scatterAdd(0, y, x)],
  ["scatterAdd", "tensor", (values) => x.scatterAdd(0, index, values)],
  ["scatterAdd", [[x, /\[1, 3\].*\[2, 3\]/], [ones([1, 3], "i32"), /i32/]], (values) => x.scatterAdd(0, index, values)], // prettier-ignore
  ["oneHot", "count", (depth) => ints.oneHot(depth)],
  ["oneHot", "dtype?", (dtype) => ints.oneHot(2, dtype)],
  ["oneHot", notIndex, (y: Tensor) => y.oneHot(3)],

  ["tensor", [[undefined, /undefined/], [null, /null/], ["123", /"123"/], [{}, /an object/], [x, /Tensor\(\[2, 3\]/], [["1"], /"1"/], [[undefined], /undefined/], [[1n], /1n/], [[true], /true/], [[[1, 2], [3]], /\[3\] at depth 1/], [[[1, 2], [3], [4, 5, 6]], /\[3\] at depth 1/], [[1, [2]], /\[2\] at depth 1/], [endless, /at depth 32/], [[[1], 2], /2 at depth 1/], [Promise.resolve([1]), /a promise/]], (values) => device.tensor(values)], // prettier-ignore
  ["tensor", [[new Uint8Array(3), /a Uint8Array of 3 is of no element type; say .* \{ dtype: "i32" \}/], [new Int8Array(1), /a Int8Array|an Int8Array/], [new Uint16Array(3), /a Uint16Array holds f16 or bf16 patterns; say which/], [new BigInt64Array(2), /BigInt64Array of 2/], [new DataView(new ArrayBuffer(8)), /DataView of 8/]], (values) => device.tensor(values)], // prettier-ignore
  ["tensor", [[new BigInt64Array(2), /BigInt64Array of 2/], [new DataView(new ArrayBuffer(8)), /DataView of 8/]], (values) => device.tensor(values, { dtype: "i32" })], // prettier-ignore
  ["tensor", "options", (options) => device.tensor([1, 2], options)],
  ["tensor", "shape?", (shape) => device.tensor([1, 2], { shape })],
  ["tensor", [[[3], /2 values.*\[3\]/], [[], /2 values.*\[\]/]], (shape) => device.tensor([1, 2], { shape })], // prettier-ignore
  ["tensor", "dtype?", (dtype) => device.tensor([1, 2], { dtype })],
  ["full", "shape", (shape) => full(shape, 1)],
  ["full", "number", (value) => full([2], value)],
  ["full", "dtype?", (dtype) => full([2], 1, dtype)],
  ["full", [[0.5, /0\.5 is no i32/], [2 ** 40, /is no i32/]], (value) => full([2], value, "i32")], // prettier-ignore
  ["zeros", "shape", (shape) => zeros(shape)],
  ["zeros", "dtype?", (dtype) => zeros([2], dtype)],
  ["ones", "shape", (shape) => ones(shape)],
  ["ones", "dtype?", (dtype) => ones([2], dtype)],
  ["iota", "shape", (shape) => iota(shape, 0)],
  ["iota", "axis", (axis) => iota([2, 3], axis)],
  ["arange", "count", (n) => arange(n)],
  ["where", "tensor", (condition) => where(condition, x, x)],
  ["where", [[x, /f32/]], (condition) => where(condition, x, x)],
  ["where", "operand", (a) => where(bools, a, x)],
  ["where", "operand", (b) => where(bools, x, b)],
  ["where", misfits, (b) => where(bools, x, b)],
  ["concat", "tensors", (list) => concat(list)],
  ["concat", [[[], /at least one/], [[x, ints], /\[2\]/], [[x, x.cast("i32")], /i32/]], (list) => concat(list)], // prettier-ignore
  ["concat", "axis?", (axis) => concat([x, x], axis)],
  ["stack", "tensors", (list) => stack(list)],
  ["stack", [[[], /at least one/], [[x, p], /\[2\]/]], (list) => stack(list)], // prettier-ignore
  ["stack", "axis?", (axis) => stack([x, x], axis)],
  ["realize", "tensor", (y) => realize(x, y)],
  ["grad", "tensor", (loss) => grad(loss, [p])],
  ["grad", [[x, /\[2, 3\]/], [ints.sum(), /i32/]], (loss) => grad(loss, [p])], // prettier-ignore
  ["grad", "tensors", (wrt) => grad(p.sum(), wrt)],
  ["grad", [[p, /Tensor|Parameter/]], (wrt) => grad(p.sum(), wrt)],
  ["checkpoint", "function", (f) => checkpoint(f, x)],
  ["checkpoint", "tensor", (y) => checkpoint((a) => a, y)],
  ["checkpointIn", "name", (t) => checkpointIn(t, (a) => a, x)],
  ["checkpoint", [[() => 1, /1 is no tensor/], [async () => x, /a promise/]], (f) => checkpoint(f, x)], // prettier-ignore
  ["explain", [[undefined, /undefined/], [null, /null/], [1, /1/], [{}, /an object/]], (what) => explain(what)], // prettier-ignore

  ["parameter", "device", (d) => Parameter.from(d, [1], [1])],
  ["parameter", "values", (values) => Parameter.from(device, values, [2])],
  ["parameter", "shape", (shape) => Parameter.from(device, [1, 2], shape)],
  ["parameter", [[[3], /2 values.*\[3\]/]], (shape) => Parameter.from(device, [1, 2], shape)],
  ["parameter", "dtype?", (dtype) => Parameter.from(device, [1, 2], [2], dtype)],
  ["weight", "values", (values) => p.set(values)],
  ["weight", [[[1], /1 value.*\[2\]/]], (values) => p.set(values)],
  ["assign", "record", (updates) => assign(updates)],
  ["assign", [[[[x, x]], /Tensor/], [[[p, 1]], /1/], [[[p, x]], /\[2, 3\]/], [[p], /./]], (updates) => assign(updates)], // prettier-ignore
  ["assign", "tensors?", (outputs) => assign([[p, p]], outputs)],

  ["key", "count", (seed) => key(seed)],
  ["Key.fold", [[undefined, /undefined/], [0.5, /0\.5/], [Number.NaN, /NaN/], [{}, /an object/], [1n, /1n/]], (data) => key(1).fold(data)], // prettier-ignore
  ["bits", "key", (k) => random.bits(k, [2])],
  ["bits", "shape", (shape) => random.bits(key(1), shape)],
  ["uniform", "key", (k) => random.uniform(k, [2])],
  ["uniform", "shape", (shape) => random.uniform(key(1), shape)],
  ["bernoulli", "key", (k) => random.bernoulli(k, [2], 0.5)],
  ["bernoulli", "shape", (shape) => random.bernoulli(key(1), shape, 1)],
  ["bernoulli", [[undefined, /undefined/], ["0.5", /"0\.5"/], [-1, /-1/], [2, /2/], [Number.NaN, /NaN/]], (probability) => random.bernoulli(key(1), [2], probability)], // prettier-ignore
  ["bitsArray", "key", (k) => random.bitsArray(k, 2)],
  ["bitsArray", "count", (n) => random.bitsArray(key(1), n)],
  ["uniformArray", "key", (k) => uniformArray(k, 2)],
  ["uniformArray", "count", (n) => uniformArray(key(1), n)],
  ["uniformArray", [["0", /"0"/], [Number.NaN, /NaN/]], (low) => uniformArray(key(1), 2, low)], // prettier-ignore
  ["normalArray", "key", (k) => normalArray(k, 2)],
  ["normalArray", "count", (n) => normalArray(key(1), n)],
  ["normalArray", [["1", /"1"/], [Number.NaN, /NaN/]], (std) => normalArray(key(1), 2, 0, std)], // prettier-ignore
  ["permutation", "key", (k) => permutation(k, 2)],
  ["permutation", "count", (n) => permutation(key(1), n)],
];

testWrongArguments(rows);

const below = new Set([...Object.keys(kernels), ...Object.keys(safetensors)]);
testAllCovered(
  new Map([
    ...Object.entries(core).filter(([name]) => !below.has(name)),
    ...Object.entries(random),
    ...methodsOf("", Tensor),
    ...methodsOf("Key.", Key),
  ]),
  rows,
  {
    Tensor: "made by devices, of nodes",
    Node: "made by builders alone",
    Device: "made by the functions of the backends",
    Parameter: "made by Parameter.from",
    Key: "made by key",
    threefry2x32: "the generator itself, which takes any words",
    sameShape: "compares what are shapes",
    topological: "walks over nodes",
    gradOrNull: "as grad",
    reference: "options of devices",
  },
);
