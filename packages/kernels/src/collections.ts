/**
 * Helpers for maps, sets and lists.
 * @module
 */

/** The value of `key`, created and stored if the map has none. */
export function getOrCreate<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = create()));
  return value;
}

/** `starts` and everything that is reachable from them along `edges`, nearest first. */
export function reachable<T>(starts: Iterable<T>, edges: (from: T) => Iterable<T>): Set<T> {
  const found = new Set(starts);
  for (const from of found) for (const to of edges(from)) found.add(to); // the loop also visits what is added
  return found;
}

/**
 * Its arguments as a list, for lists that live as long as a graph. Engines watch how long the literals of a place in the code live, and
 * allocate those that do as if they lived for ever: all graphs of dead steps would then wait for a collection of the whole heap.
 */
export const list = <T extends readonly unknown[]>(...items: T): T => items;
