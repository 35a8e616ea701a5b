/** A model with its tokenizer, which most programs load together from a model directory. */
import type { Files } from "@tiedlora/core";
import type { Decoder } from "./decoder.ts";
import { generateText, type Prompt, streamText, type TextOptions } from "./generate.ts";
import { loadModelFrom, type LoadOptions } from "./load.ts";
import { type ChatMessage, type ChatOptions, loadTokenizerFrom, type Tokenizer } from "./tokenizer.ts";

/** A model and the tokenizer it was trained with. */
export class Pretrained {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;

  constructor(model: Decoder, tokenizer: Tokenizer) {
    this.model = model;
    this.tokenizer = tokenizer;
  }

  /** A token to fill rows up with; masks make its value irrelevant. */
  get padId(): number {
    const { vocab, pad, eos } = this.model.config;
    const known = [this.tokenizer.padId, pad, eos[0]].find(
      (id) => typeof id === "number" && id >= 0 && id < vocab,
    );
    return known ?? 0; // a tokenizer may have a token for padding that the model's embedding has no row for
  }

  /** Generates the text that follows the prompt. */
  async complete(prompt: Prompt, options: TextOptions = {}): Promise<string> {
    return (await generateText(this.model, this.tokenizer, [prompt], options))[0]!;
  }

  /** The prompt of a chat, in the model's own form, for `complete` and `stream`. */
  chatPrompt(messages: readonly ChatMessage[], options: ChatOptions = {}): number[] {
    return this.tokenizer.encode(this.tokenizer.chat(messages, options), { specialTokens: false });
  }

  /** Generates the text that follows the prompt, piece by piece. */
  stream(prompt: Prompt, options: TextOptions = {}): AsyncGenerator<string, void, undefined> {
    return streamText(this.model, this.tokenizer, prompt, options);
  }
}

/** Loads a model and its tokenizer from the files of a Hugging Face directory. */
export async function loadPretrainedFrom(files: Files, options: LoadOptions): Promise<Pretrained> {
  const tokenizer = await loadTokenizerFrom(files);
  return new Pretrained(await loadModelFrom(files, options), tokenizer);
}
