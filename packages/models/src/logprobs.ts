/** Log-probabilities of tokens in the model's own distribution: before temperature, penalties and cuts. */

/** A token and the logarithm of its probability, in nats. */
export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
}

/** log p of a token, and the `count` most likely tokens, the likeliest first. Of equal tokens, that of the lower id comes first. */
export function logprobsOf(
  logits: ArrayLike<number>,
  token: number,
  count: number,
): { readonly logprob: number; readonly top: readonly TokenLogprob[] } {
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > max) max = logits[i]!;
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += Math.exp(logits[i]! - max);
  const shift = max + Math.log(total);
  const best: number[] = [];
  for (let i = 0; i < logits.length; i++) {
    if (count === 0 || (best.length === count && logits[best.at(-1)!]! >= logits[i]!)) continue;
    const at = best.findIndex((other) => logits[other]! < logits[i]!);
    best.splice(at < 0 ? best.length : at, 0, i);
    if (best.length > count) best.pop();
  }
  return {
    logprob: logits[token]! - shift,
    top: best.map((id) => ({ token: id, logprob: logits[id]! - shift })),
  };
}
