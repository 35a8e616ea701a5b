/** The errors of models and adapters for wrong arguments: one row for each argument of their main functions. */
import assert from "node:assert/strict";
import { key, reference } from "@tiedlora/core";
import {
  countParameters as countDecoder,
  createModel,
  generateTokens,
  idsTensor,
  linearSpecs,
  parseConfig,
  sampleToken,
} from "@tiedlora/models";
import {
  adapt,
  adaptersOf,
  combine,
  countParameters,
  defineMethod,
  init,
  inspect,
  METHOD_NAMES,
  methodByName,
  methods,
  planAdapter,
  tiedLora,
} from "tiedlora";
import { type Row, testWrongArguments } from "../../../test/support/wrong-arguments.ts";

const device = reference();
const sizes = {
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  vocab_size: 16,
};
const config = parseConfig(JSON.stringify({ model_type: "llama", max_position_embeddings: 32, ...sizes }), "config.json"); // prettier-ignore
const model = createModel(config, { device, seed: 1 });
const lora = methods.lora({ rank: 2 });
adapt(model, lora, { name: "a" });

const NO_LISTS = [
  [undefined, /undefined/],
  [null, /null/],
  [3, /3/],
  ["text", /"text"/],
  [{}, /object/],
] as const;

const rows: readonly Row[] = [
  ["adapter", "record", (other) => adapt(other, lora)],
  ["adapt", "record", (method) => adapt(model, method)],
  ["adapt", "options", (options) => adapt(model, lora, options)],
  ["adapt", [[{ nam: "b" }, /no option "nam"; give seed, name, active, replace/], [{ name: 3 }, /3/]], (options) => adapt(model, lora, options)], // prettier-ignore
  ["key", [[-1, /-1/], [0.5, /0\.5/], ["1", /"1"/]], (seed) => adapt(model, lora, { name: "b", seed })], // prettier-ignore
  ["adapter", "record", (other) => adaptersOf(other)],
  ["combine", "record", (weights) => combine(model, weights, { name: "b" })],
  ["combine", "options", (options) => combine(model, { a: 1 }, options)],
  ["combine", "name?", (how) => combine(model, { a: 1 }, { name: "b", how })],
  ["defineMethod", "record", (spec) => defineMethod(spec)],
  ["defineMethod", "record", (factors) => defineMethod({ name: "mine", factors })],
  ["lora: rank", [[0, /0/], [0.5, /0\.5/], [Number.NaN, /NaN/], ["8", /8/]], (rank) => methods.lora({ rank })], // prettier-ignore
  ["lora: alpha", [[0, /0/], ["1", /"1"/], [Number.NaN, /NaN/], [[1], /\[1\]/]], (alpha) => methods.lora({ alpha })], // prettier-ignore
  [
    "dora: dropout",
    [
      [1, /1/],
      ["0", /"0"/],
      [-1, /-1/],
    ],
    (dropout) => methods.dora({ dropout }),
  ],
  ...["rank", "alpha", "dropout", "target", "modulesToSave", "tied", "init", "keep"].map(
    (option): Row => [`tl6: ${option}`, [[null, /null given; leave it out, or give a value/]], (value) => methods.tl6({ [option]: value })], // prettier-ignore
  ),
  ["tiedLora: alpha", [[null, /null/]], (alpha) => tiedLora({ trained: ["A"], alpha })],
  ["dora: dropout", [[null, /null/]], (dropout) => methods.dora({ dropout })],
  ["vera: dInitial", [[null, /null/]], (dInitial) => methods.vera({ dInitial })],
  ["mine: rank", [[null, /null/]], (rank) => defineMethod({ name: "mine", rank, factors: {}, lowRank: () => assert.fail() })], // prettier-ignore
  ...["vectors", "length", "topK"].map(
    (option): Row => [`vb-lora: ${option}`, [[null, /null/], [0, /0/], [0.5, /0\.5/], ["2", /"2"/]], (value) => methods.vbLora({ [option]: value })], // prettier-ignore
  ),
  ["vera: scaling", "name?", (scaling) => methods.vera({ scaling })],
  ["tl6: bias", "name?", (bias) => methods.tl6({ bias })],
  ["tl6: modulesToSave", [["norm", /"norm"/], [[1], /\[1\]/]], (modulesToSave) => methods.tl6({ modulesToSave })], // prettier-ignore
  ["lora: rankPattern", [[3, /3/], [{ q_proj: 0.5 }, /q_proj: rank 0\.5/]], (rankPattern) => methods.lora({ rankPattern })], // prettier-ignore
  ["lora: alphaPattern", [["x", /"x"/], [{ q_proj: "1" }, /q_proj: alpha "1"/]], (alphaPattern) => methods.lora({ alphaPattern })], // prettier-ignore
  ...METHOD_NAMES.map((name): Row => [name, "options", (options) => methodByName(name, options)]),
  ...METHOD_NAMES.map((name): Row => [name, [[{ ranks: 4 }, /no option "ranks"; give rank, alpha/]], (options) => methodByName(name, options)]), // prettier-ignore
  ["tiedLora", "record", (options) => tiedLora(options)],
  ["tiedLora", [[{ trained: ["A"], tie: true }, /no option "tie"; give rank/]], (options) => tiedLora(options)], // prettier-ignore
  ["inspect", "record", (adapter) => inspect(adapter)],
  ["planAdapter", [...NO_LISTS, [[{ path: "q_proj", in: 8 }], /module 0/]], (linears) => planAdapter(linears, lora)], // prettier-ignore
  ["planAdapter", "record", (method) => planAdapter(linearSpecs(config), method)],
  ["countParameters", [...NO_LISTS, [["q_proj"], /module 0.*"q_proj"/]], (linears) => countParameters(linears, lora)], // prettier-ignore
  ["countParameters", "record", (method) => countParameters(linearSpecs(config), method)],
  ["countParameters", "record", (other) => countDecoder(other)],
  ["linearSpecs", "record", (other) => linearSpecs(other)],
  ["selection", [["A", /"A"/], [{ factor: ["A"] }, /no option "factor"; give factors/], [{ factors: "A" }, /"A"/], [{ layers: 0 }, /0/], [{ match: "q" }, /"q"/]], (selection) => adaptersOf(model).get("a").freeze(selection)], // prettier-ignore
  ["sampleToken: logits", "values", (logits) => sampleToken(logits, {}, [], key(1))],
  ["sampleToken", "options", (options) => sampleToken([1, 2], options, [], key(1))],
  ["sampleToken: seen", [[undefined, /undefined/], [null, /null/], [3, /3/], [{}, /object/]], (seen) => sampleToken([1, 2], {}, seen, key(1))], // prettier-ignore
  ["sampleToken", "key", (random) => sampleToken([1, 2], {}, [], random)],
  ["temperature", [["1", /"1"/], [-1, /-1/]], (temperature) => sampleToken([1, 2], { temperature }, [], key(1))], // prettier-ignore
  ["init.normal", "finite?", (std) => init.normal(std)],
  ["init.uniform", "finite?", (bound) => init.uniform(bound)],
  ["init.constant", "finite", (value) => init.constant(value)],
  ["createModel", "record", (other) => createModel(other, { device, seed: 1 })],
  ["createModel", "options", (options) => createModel(config, options)],
  ["token ids", [[undefined, /undefined/], [null, /null/], [3, /3/], ["text", /"text"/], [{}, /an object/]], (ids) => model.forward(ids)], // prettier-ignore
  ["token ids", [[undefined, /undefined/], [3, /3/], ["text", /"text"/], [[1, 2], /2/]], (ids) => idsTensor(device, ids, 16)], // prettier-ignore
  ["loss", "record", (batch) => model.loss(batch)],
  ["generateTokens", "record", (prompts) => generateTokens(model, prompts).next()],
  ["generateTokens", "options", (options) => generateTokens(model, [[1]], options).next()],
];

testWrongArguments(rows);
