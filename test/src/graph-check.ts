/** Runs a random graph on a device and on the yardstick. */
import { type Device, realize } from "@tiedlora/core";
import { type Coverage, firstDifference } from "./compare.ts";
import { buildGraph, type GraphGene } from "./generate/graphs.ts";
import type { Yardstick } from "./yardstick.ts";

/** Throws unless all outputs of the graph on `device` are within the yardstick's bounds. */
export async function checkGraph(
  device: Device,
  yardstick: Yardstick,
  gene: GraphGene,
  limit: number,
  coverage: Coverage,
): Promise<void> {
  const { dtypes } = device.backend.caps;
  const expected = buildGraph(gene, yardstick.device, dtypes, limit);
  const found = buildGraph(gene, device, dtypes, limit);
  realize(...expected.outputs);
  realize(...found.outputs);
  for (const [i, tensor] of expected.outputs.entries()) {
    const { values, errors } = await yardstick.read(tensor);
    const complaint = firstDifference(await found.outputs[i]!.data(), values, errors, coverage);
    if (complaint)
      throw new Error(
        `output ${i} [${tensor.shape.join(", ")}] ${tensor.dtype}, ${complaint}\n${expected.text}`,
      );
  }
}
