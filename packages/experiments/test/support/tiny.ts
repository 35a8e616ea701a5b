/** A tiny model with a tokenizer for the toy tasks: a run of a sweep on it takes a fraction of a second. */
import { cpu } from "@tiedlora/backend-cpu";
import { memoryFiles } from "@tiedlora/core";
import { configFrom, createModel, loadTokenizerFrom } from "@tiedlora/models";
import { NO_FILES } from "../../src/node/tasks.ts";
import type { RunConfig } from "../../src/sweep/config.ts";
import type { RunContext } from "../../src/sweep/run.ts";
import { document, tokenizerFiles, trainBpe } from "../../src/toy-tasks/index.ts";

/** The model and its tokenizer. The caller closes the model's device. */
export async function tinyContext(): Promise<RunContext> {
  const texts = Array.from({ length: 60 }, (_, i) => document(1, i));
  const { tokenizer, config } = tokenizerFiles(trainBpe(texts, 300), 128);
  const model = createModel(
    configFrom({
      model_type: "llama", hidden_size: 8, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
      num_key_value_heads: 2, vocab_size: 300, max_position_embeddings: 160, tie_word_embeddings: true,
      initializer_range: 0.2, bos_token_id: 1, eos_token_id: 2,
    }), // prettier-ignore
    { device: await cpu({ threads: 1 }), seed: 3 },
  );
  const files = new Map([
    ["tokenizer.json", JSON.stringify(tokenizer)],
    ["tokenizer_config.json", JSON.stringify(config)],
  ]);
  return { model, tokenizer: await loadTokenizerFrom(memoryFiles(files)), padId: 0, source: NO_FILES };
}

/** A run of six steps on it, validated after each second step. */
export const TINY_RUN: RunConfig = {
  model: "tiny", task: "arithmetic", data: null, method: "tl6", rank: 2, target: "qkv", dropout: 0, seed: 2, steps: 6, batch: 4,
  seq: 120, lr: 0.05, schedule: "cosine", warmup: 1, weightDecay: 0.01, clip: 1, every: 2, patience: null,
  examples: { train: 12, valid: 4, test: 3 }, lossOnly: false,
}; // prettier-ignore
