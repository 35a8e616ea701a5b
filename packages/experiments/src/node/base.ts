/** The base model that comes with this package: small, trained on generated stories by scripts/pretrain.ts. */
import { fileURLToPath } from "node:url";
import type { LoadOptions } from "@tiedlora/models";
import { loadPretrained, type Pretrained } from "@tiedlora/models/node";

/** The Hugging Face directory of the base model. */
export const BASE_DIRECTORY: string = fileURLToPath(new URL("../../assets/base/", import.meta.url));

/** Loads the embedded base model and its tokenizer. */
export function loadBase(options: LoadOptions): Promise<Pretrained> {
  return loadPretrained(BASE_DIRECTORY, options);
}
