/** Functions whose intermediate values are computed again in the backward pass, which saves the memory to keep them. */
import * as build from "./build.ts";
import type { Node } from "./graph.ts";
import { updatesSoFar } from "./storage.ts";
import { checkTensors, Tensor } from "./tensor.ts";
import { checkFunction, checkName } from "@tiedlora/kernels/arguments";

/**
 * fn(...inputs), whose intermediate values are computed again in the backward pass instead of being kept for it. `fn` is called
 * twice and must build the same graph both times (dropout does, since its keys are values). It may capture parameters.
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: readonly Tensor[]): Tensor {
  return recomputed("checkpoint", fn, inputs, ({ node }) => [node, (kept) => kept]);
}

/**
 * As `checkpoint`, but f32 inputs are kept for the backward pass as copies in half precision, which take half of the memory. The
 * value stays exact; its gradient is computed at the rounded inputs.
 */
export function checkpointIn(
  keep: "f16" | "bf16",
  fn: (...inputs: Tensor[]) => Tensor,
  ...inputs: readonly Tensor[]
): Tensor {
  checkName("checkpointIn", keep, ["f16", "bf16"]);
  return recomputed("checkpointIn", fn, inputs, ({ node }) => {
    if (node.dtype !== "f32") return [node, (kept) => kept];
    // the gradient with respect to the rounded copy counts as that of the input
    const replay = { inputs: [node], made: updatesSoFar(), run: ([x]: readonly Node[]): Node => x! };
    return [build.cast(node, keep), (kept) => build.marked(build.cast(kept, "f32"), replay)];
  });
}

function recomputed(
  what: string,
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  keep: (input: Tensor) => readonly [kept: Node, restore: (kept: Node) => Node],
): Tensor {
  checkFunction(what, fn, "one from tensors to a tensor, then its inputs");
  const [out] = checkTensors(what, [fn(...checkTensors(what, inputs))]) as [Tensor];
  const all = inputs.map(keep);
  const node = build.marked(out.node, {
    inputs: all.map(([kept]) => kept),
    made: updatesSoFar(),
    run: (nodes) => fn(...nodes.map((n, i) => new Tensor(all[i]![1](n), inputs[i]!.device))).node,
  });
  return new Tensor(node, out.device);
}
