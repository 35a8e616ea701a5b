/** What models and adapters say of wrong arguments: one row for each argument of their main functions. */
import { reference } from "@tiedlora/core";
import { createModel, generateTokens, idsTensor, parseConfig } from "@tiedlora/models";
import { adapt, adaptersOf, combine, defineMethod, init, methods } from "tiedlora";
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
