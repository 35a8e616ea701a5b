/** Reading results and showing graphs, for tests of the planner. */
import { BYTES, type Node, product, type Storage, viewBytes } from "@tiedlora/core";

/** The elements that `storage` holds of `node` (no half precision). */
export async function read(node: Node, storage: Storage): Promise<Float64Array> {
  const bytes = await storage.buffer.read(0, product(node.shape) * BYTES[node.dtype]);
  return Float64Array.from(viewBytes(node.dtype, bytes));
}

/** A graph as text, for the report of a failure. */
export function show(roots: readonly Node[]): string {
  const lines: string[] = [];
  const names = new Map<Node, string>();
  const visit = (node: Node): string => {
    const known = names.get(node);
    if (known) return known;
    const inputs = node.inputs.map(visit);
    const name = `n${names.size}`;
    names.set(node, name);
    const attrs = "values" in node.attrs || "storage" in node.attrs ? "" : JSON.stringify(node.attrs);
    lines.push(`${name} = ${node.op}(${inputs.join(", ")}) ${attrs} [${node.shape.join(",")}] ${node.dtype}`);
    return name;
  };
  const list = roots.map(visit);
  return `${lines.join("\n")}\nroots ${list.join(", ")}`;
}
