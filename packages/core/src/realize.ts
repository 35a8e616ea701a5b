/** Where laziness ends: executing turns nodes into results in memory, and reading copies a result to the host. */
import { viewBytes } from "@tiedlora/kernels";
import * as build from "./build.ts";
import { bytesOf, isOp, type Node, settle } from "./graph.ts";
import { submit, type Update } from "./plan.ts";
import type { Runtime } from "./runtime.ts";
import type { Storage } from "./storage.ts";

/** Storages shared by several equal results: freed once nothing refers to them. */
const shared = new WeakSet<Storage>();

/** Submits one program that computes `wanted` and applies `updates`; the wanted nodes become leaves in memory. */
export function execute(device: Runtime, wanted: readonly Node[], updates: readonly Update[] = []): void {
  const nodes = [...new Set(wanted)].filter(({ op }) => op !== "buffer" && op !== "data");
  if (nodes.length + updates.length === 0) return;
  const outputs = submit(device, nodes, updates);
  outputs.forEach((storage, i) => {
    if (outputs.indexOf(storage) !== i) shared.add(storage);
  });
  nodes.forEach((node, i) => settle(node, build.buffer(outputs[i]!, node.shape, node.dtype)));
}

/** The bytes of a computed node. A result then stays on the host, and its device memory is freed unless it is shared. */
export async function readValue(node: Node): Promise<ArrayBufferLike> {
  if (isOp(node, "data")) {
    const { buffer, byteOffset, byteLength } = node.attrs.values;
    return buffer.slice(byteOffset, byteOffset + byteLength);
  }
  const { storage } = (node as Node<"buffer">).attrs;
  const bytes = await storage.buffer.read(0, bytesOf(node));
  // another reader may have done this already
  if (node.origin && isOp(node, "buffer")) {
    settle(node, build.data(viewBytes(node.dtype, bytes), node.shape, node.dtype));
    if (!shared.has(storage)) storage.buffer.free();
  }
  return bytes;
}
