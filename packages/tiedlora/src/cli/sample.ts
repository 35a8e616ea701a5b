/** What a model makes of an example's prompt. */
import type { Decoder, Tokenizer } from "@tiedlora/models";
import { generateText } from "@tiedlora/models";
import { isChat, type Example } from "../data/examples.ts";

const TOKENS = 48;

export interface Sample {
  readonly prompt: string;
  readonly completion: string;
}

/** The prompt of an example and what the model, as it is now, goes on with. */
export async function sampleOf(model: Decoder, tokenizer: Tokenizer, example: Example): Promise<Sample> {
  const prompt = promptOf(example, tokenizer);
  const ids = isChat(example) ? tokenizer.encode(prompt, { specialTokens: false }) : prompt;
  const [completion = ""] = await generateText(model, tokenizer, [ids], { maxTokens: TOKENS });
  return { prompt, completion };
}

/** The prompt as text; of an example that has none, its first words; of a chat, all before its last answer. */
function promptOf(example: Example, tokenizer: Tokenizer): string {
  if (!isChat(example)) {
    if (example.prompt !== "") return example.prompt;
    return example.completion.trim().split(/\s+/).slice(0, 5).join(" ");
  }
  const last = example.messages.findLastIndex(({ role }) => role === "assistant");
  return tokenizer.chat(example.messages.slice(0, last), { addGenerationPrompt: true });
}
