/** Reports the cost of a graph: see `Explanation`. */
import { costOf, Explanation } from "@tiedlora/kernels";
import { refuse } from "@tiedlora/kernels/arguments";
import { isOp } from "./graph.ts";
import { planFor, type Update } from "./plan.ts";
import { hostRuntime, type Runtime } from "./runtime.ts";
import type { Tensor } from "./tensor.ts";

/** Tensors and updates to be computed together: the arguments of `submit`. */
export interface Traced {
  readonly device: Runtime;
  readonly tensors: readonly Tensor[];
  readonly updates: readonly Update[];
}

/**
 * The kernels that would compute `what`, a tensor or a whole training step: `console.log(String(explain(loss)))`,
 * or `optimizer.trace(loss)`. Computes nothing, but compiles the program and caches it, as running it would.
 */
export function explain(what: Tensor | Traced): Explanation {
  const given = what as Partial<Tensor & Traced> | null | undefined;
  if (!given?.node && !given?.tensors)
    refuse("explain", what, "tensor or step", "one, e.g. optimizer.trace(loss)");
  const { device, tensors, updates } =
    "tensors" in what ? what : { device: what.device ?? hostRuntime(), tensors: [what], updates: [] };
  const roots = tensors.map((t) => t.node).filter((node) => !isOp(node, "buffer") && !isOp(node, "data"));
  const { program, rules } = planFor(device, roots, updates);
  const temps = program.buffers.filter(({ kind }) => kind === "temp");
  const steps = program.steps.map((step, i) => ({ ...costOf(step), rules: rules[i]! }));
  const tempBytes = temps.reduce((sum, { bytes }) => sum + bytes, 0);
  return new Explanation(steps, tempBytes);
}
