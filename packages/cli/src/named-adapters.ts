/** Adapters on a command line that takes several: each a directory, perhaps with a name. */
import { basename, resolve } from "node:path";
import { UsageError } from "./settings.ts";

export interface NamedAdapter {
  readonly name: string;
  readonly path: string;
}

/** Reads --adapter: "name=directory", or a directory, whose own name is then the adapter's. Throws UsageError if a name occurs twice. */
export function namedAdapters(given: readonly string[]): NamedAdapter[] {
  const adapters = given.map(namedAdapter);
  const twice = adapters.find(({ name }, i) => adapters.findIndex((one) => one.name === name) < i);
  if (twice === undefined) return adapters;
  throw new UsageError(
    `--adapter: two adapters are called "${twice.name}"; name them: --adapter a=DIR b=DIR`,
  );
}

function namedAdapter(given: string): NamedAdapter {
  const [, name, path] = /^([^=/\\]+)=(.+)$/.exec(given) ?? [];
  return name === undefined ? { name: basename(resolve(given)), path: given } : { name, path: path! };
}
