/** Shows how a model completes the prompt of an example. */
import type { ChatMessage, Decoder, Prompt, Tokenizer } from "@tiedlora/models";
import { generateText } from "@tiedlora/models";
import { promptTokens } from "tiedlora";
import { isChat } from "tiedlora/internal";
import { type Example } from "tiedlora";

const TOKENS = 48;
/** As many for a model whose weights are read from their files anew for each token. */
const STREAMED_TOKENS = 8;

export interface Sample {
  readonly prompt: string;
  readonly completion: string;
}

/** The prompt of an example, and its completion by the model in its current state. */
export async function sampleOf(
  model: Decoder,
  tokenizer: Tokenizer,
  example: Example,
  separator?: string,
): Promise<Sample> {
  const prompt = promptOf(example, tokenizer);
  const given = isChat(example)
    ? tokenizer.encode(prompt, { specialTokens: false })
    : example.prompt === "" ? prompt : givenPrompt(tokenizer, prompt, separator); // prettier-ignore
  const ids = typeof given === "string" ? tokenizer.encode(given) : given;
  const maxTokens = Math.min(model.streamed ? STREAMED_TOKENS : TOKENS, roomAfter(model, ids.length));
  if (maxTokens < 1) return { prompt, completion: "" };
  const [completion = ""] = await generateText(model, tokenizer, [ids], { maxTokens });
  return { prompt, completion };
}

/** The most new tokens after a prompt for which a model that learns its positions has some. */
function roomAfter({ config: { rope, maxPositions }, positionsInFront }: Decoder, length: number): number {
  return rope === null ? maxPositions + 1 - positionsInFront - length : Infinity;
}

/** A prompt as it is passed to a model; with a separator, encoded as for a model that was trained with that separator. */
export function givenPrompt(tokenizer: Tokenizer, prompt: string, separator: string | undefined): Prompt {
  return separator === undefined ? prompt : promptTokens(tokenizer, prompt, separator);
}

/** Messages in the form of the model's chat template, as it is passed to a model. Throws if there is no template. */
export function chatTokens(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  variables: Readonly<Record<string, unknown>> = {},
): number[] {
  return tokenizer.encode(tokenizer.chat(messages, { variables }), { specialTokens: false });
}

/** The prompt as text: without a prompt, the completion's first words; for a chat, everything before the last answer. */
function promptOf(example: Example, tokenizer: Tokenizer): string {
  if (!isChat(example)) {
    if (example.prompt !== "") return example.prompt;
    return example.completion.trim().split(/\s+/).slice(0, 5).join(" ");
  }
  const last = example.messages.findLastIndex(({ role }) => role === "assistant");
  return tokenizer.chat(example.messages.slice(0, last), { addGenerationPrompt: true });
}
