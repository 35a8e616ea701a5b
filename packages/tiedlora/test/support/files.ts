/** Files of adapters held in memory, for tests. */
import { key, memoryFiles, normalArray, type Files } from "@tiedlora/core";
import type { Adapter, OutputFile } from "../../src/index.ts";

export type Contents = Map<string, Uint8Array | string>;

export async function collect(files: readonly OutputFile[]): Promise<Contents> {
  const contents: Contents = new Map();
  for (const [name, content] of files) {
    if (typeof content === "string" || content instanceof Uint8Array) {
      contents.set(name, content);
    } else {
      const chunks: Uint8Array[] = [];
      for await (const chunk of content) chunks.push(chunk);
      contents.set(name, Uint8Array.from(Buffer.concat(chunks)));
    }
  }
  return contents;
}

export function asFiles(contents: Contents): Files {
  return memoryFiles(contents, "adapter");
}

/** The same files with their config changed. */
export function withConfig(contents: Contents, edit: (config: Record<string, unknown>) => void): Contents {
  const config = JSON.parse(contents.get("adapter_config.json") as string) as Record<string, unknown>;
  edit(config);
  return new Map([...contents, ["adapter_config.json", JSON.stringify(config)]]);
}

/** Gives every parameter random values, so that no fault is hidden by a parameter of zero. */
export function randomize(adapter: Adapter, seed = 5, std = 0.5): Adapter {
  for (const [path, parameter] of adapter.stateDict())
    if (parameter.dtype === "f32") parameter.set(normalArray(key(seed).fold(path), parameter.size, 0, std));
  return adapter;
}
