/** Trained vectors in front of the tokens of every sequence, as an adapter of the input embedding gives them. */
import { concat, type Tensor } from "@tiedlora/core";
import type { Sequence } from "./sequence.ts";

/**
 * The rows of the tokens [batch, length, hidden] with the vectors [n, hidden] in front of them, behind the padding that a row begins with:
 * [batch, n + length, hidden]. The rows alone if there are no vectors, or if they are in a cache.
 */
export function withPrompt(
  tokens: Tensor,
  vectors: Tensor | null,
  { prompt, promptAt }: Pick<Sequence, "prompt" | "promptAt">,
): Tensor {
  if (vectors === null || prompt === 0) return tokens;
  const [batch, length, width] = tokens.shape as [number, number, number];
  if (promptAt.every((place) => place === 0))
    return concat([vectors.unsqueeze(0).expand([batch, prompt, width]), tokens], 1);
  const total = prompt + length;
  const index = Int32Array.from({ length: batch * total }, (_, i) => {
    const [row, t] = [Math.floor(i / total), i % total];
    const place = promptAt[row]!;
    if (t >= place && t < place + prompt) return t - place;
    return prompt + row * length + (t < place ? t : t - prompt);
  });
  const at = tokens.device!.tensor(index, { shape: [batch, total] });
  return concat([vectors, tokens.reshape([batch * length, width])]).take(at);
}
