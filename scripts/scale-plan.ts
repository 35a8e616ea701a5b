/**
 * Plans a step of TL6 at a model's shape, and prints the memory that it takes beside the weights. Nothing is computed, and no weights are
 * made, so it takes seconds and little memory at any size.
 *
 *   npm run scale:plan -- qwen2.5-0.5b [--rows 4] [--tokens 512] [--no-checkpointing]
 */
import { parseArgs } from "node:util";
import { cpu } from "@tiedlora/backend-cpu";
import { explain } from "@tiedlora/core";
import { Decoder, preset } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";
import { adapt, methods } from "tiedlora";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  allowNegative: true,
  options: {
    rows: { type: "string", default: "4" },
    tokens: { type: "string", default: "512" },
    checkpointing: { type: "boolean", default: true },
  },
});
const config = preset(positionals[0] ?? "");
if (config === undefined || positionals.length !== 1) throw new Error("give one shape, such as qwen2.5-0.5b");
const [rows, tokens] = [Number(values.rows), Number(values.tokens)];

const device = await cpu({ threads: 1 });
// A plan needs the shapes and types of weights, and no values: a few bytes of memory stand for each.
const model = new Decoder(config, device, (path, shape) => new nn.Parameter(device.allocate(4, path), shape, "bf16", device)); // prettier-ignore
model.checkpointing = values.checkpointing;
const adapter = adapt(model, methods.tl6({ rank: 8, target: "qkv" }));
const optimizer = optim.adamW(adapter.parameters(), { lr: 1e-3 });
const inputIds = Array.from({ length: rows }, (_, r) =>
  Int32Array.from({ length: tokens }, (_one, t) => (31 * t + r) % config.vocab),
);
const { tempBytes } = explain(optimizer.trace(model.loss({ inputIds })));
console.log(`${rows} × ${tokens} tokens${values.checkpointing ? ", checkpointed" : ""}: ${(tempBytes / 2 ** 30).toFixed(3)} GiB of temporaries`); // prettier-ignore
device.close();
