/** Guesses which name was meant, for error messages. */

/**
 * The candidate with the smallest edit distance to `name`, without regard to case; null if that distance exceeds both 2 and a third
 * of the length of `name`.
 */
export function nearest(name: string, candidates: Iterable<string>): string | null {
  let best: string | null = null;
  let fewest = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    const edits = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (edits < fewest) [best, fewest] = [candidate, edits];
  }
  return best;
}

/** The end of a message about an unknown name: the known name that was meant or, if none is near, all of them after `list`. */
export function suggestion(name: string, known: Iterable<string>, list = "there are"): string {
  const names = [...known];
  const close = nearest(name, names);
  return close === null ? `${list} ${names.join(", ") || "none"}` : `did you mean "${close}"?`;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
