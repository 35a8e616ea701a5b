/** The ids of tokens that a method is declared with. */
import { checkWhole, refuse } from "@tiedlora/core/arguments";

/** Throws unless `tokens` is a list of different ids, at least one. */
export function checkTokens(what: string, tokens: readonly number[]): void {
  if (!Array.isArray(tokens) || tokens.length === 0 || new Set(tokens).size !== tokens.length)
    refuse(what, tokens, "list of different ids of tokens", "at least one, e.g. [32000]");
  for (const token of tokens as readonly number[]) checkWhole(`${what}: a token`, token, 0);
}
