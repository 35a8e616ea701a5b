/** The input embedding of tokens as the target of methods that act there alone. */
import type { Target } from "../adapter/sites.ts";

/** The names that models give it. */
export const INPUT_EMBEDDINGS: readonly string[] = ["embed_tokens", "wte"];
const INPUTS = new RegExp(`.*\\b(${INPUT_EMBEDDINGS.join("|")})`);

/** The target of such a method: the input embedding in place of "qkv" and "all-linear", which are defaults. */
export function inputEmbedding(target: Target = "qkv"): Target {
  const replaced = (modules: unknown): boolean => modules === "qkv" || modules === "all-linear";
  if (replaced(target)) return INPUTS;
  const isSpec = typeof target === "object" && "modules" in target;
  return isSpec && replaced(target.modules) ? { ...target, modules: INPUTS } : target;
}
