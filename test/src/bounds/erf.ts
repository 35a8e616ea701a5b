/** The error function in double precision, by two classical expansions (DLMF 7.6.2 and 7.9.1). */
export function erf(x: number): number {
  const a = Math.abs(x);
  const y = a < 2.5 ? series(a) : 1 - complement(a);
  return x < 0 ? -y : y;
}

/** erf(x) = 2/sqrt(pi) exp(-x^2) Σ 2^n x^(2n+1) / (1·3·…·(2n+1)): all terms are positive. */
function series(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; term > 1e-17 * sum; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** erfc(x) as a continued fraction, evaluated from its innermost term. */
function complement(x: number): number {
  if (x > 27) return 0;
  let tail = x;
  for (let k = 80; k >= 1; k--) tail = x + k / 2 / tail;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / tail;
}
