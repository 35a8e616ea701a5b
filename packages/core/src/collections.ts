/** What maps and sets lack. */

/** The value of `key`, created if there is none. */
export function getOrCreate<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = create()));
  return value;
}

/** `starts` and all that is reached from them along `edges`, the nearest first. */
export function reachable<T>(starts: Iterable<T>, edges: (from: T) => Iterable<T>): Set<T> {
  const found = new Set(starts);
  for (const from of found) for (const to of edges(from)) found.add(to); // the loop goes on to what is added
  return found;
}
