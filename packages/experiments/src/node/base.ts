/** The base models that come with this package: small, trained on generated stories by scripts/pretrain.ts. */
import { fileURLToPath } from "node:url";
import type { LoadOptions } from "@tiedlora/models";
import { loadPretrained, type Pretrained } from "@tiedlora/models/node";

const assets = (name: string): string => fileURLToPath(new URL(`../../assets/${name}/`, import.meta.url));

/** The Hugging Face directory of the base model. */
export const BASE_DIRECTORY: string = assets("base");

const EMBEDDED = new Map([
  ["base", BASE_DIRECTORY],
  ["base-gpt2", assets("base-gpt2")],
]);

/**
 * The Hugging Face directory of an embedded model, by the name that a sweep gives it: "base" in Llama's layout, "base-gpt2" in
 * GPT-2's, pretrained on the same text with the same tokenizer. Null for every other name.
 */
export const embeddedBase = (name: string): string | null => EMBEDDED.get(name) ?? null;

/** Loads the embedded base model and its tokenizer. */
export function loadBase(options: LoadOptions): Promise<Pretrained> {
  return loadPretrained(BASE_DIRECTORY, options);
}
