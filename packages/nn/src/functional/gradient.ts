/** Gradients beyond `grad`: of any outputs, given their cotangents, and of functions that bring a rule of their own. */
import { computeType, isFloat, sameShape, Tensor, zeros } from "@tiedlora/core";
import { build, checkFunction, checkOptions, checkTensors, deviceOf } from "@tiedlora/core/extend";
import { gradients, show } from "@tiedlora/core/extend";

const listOf = (tensors: Tensor | readonly Tensor[]): readonly Tensor[] =>
  tensors instanceof Tensor ? [tensors] : tensors;

/**
 * The vector-Jacobian product: Σ over the outputs of cotangent · d output / d x for each x of `wrt`, without summing the outputs to
 * one number first. The results are lazy and can be differentiated again, also with respect to the cotangents; they are zeros where
 * no output depends on a tensor. Throws unless each output is of floats and has a cotangent of its own shape.
 */
export function vjp(
  outputs: Tensor | readonly Tensor[],
  wrt: readonly Tensor[],
  cotangents: Tensor | readonly Tensor[],
): Tensor[] {
  const ys = checkTensors("vjp: outputs", listOf(outputs));
  const gs = checkTensors("vjp: cotangents", listOf(cotangents));
  checkTensors("vjp: wrt", wrt);
  if (ys.length !== gs.length)
    throw new RangeError(`vjp: ${ys.length} outputs and ${gs.length} cotangents; give one for each output`);
  const roots = ys.map((y, i) => [y.node, cotangentOf(y, gs[i]!)] as const);
  const device = deviceOf([...ys, ...gs, ...wrt]);
  const found = gradients(
    roots,
    wrt.map((x) => x.node),
  );
  return found.map((node, i) => {
    const { shape, dtype } = wrt[i]!;
    return node === null ? zeros(shape, computeType(dtype)) : new Tensor(node, device);
  });
}

function cotangentOf(y: Tensor, g: Tensor): Tensor["node"] {
  if (!isFloat(y.dtype)) throw new TypeError(`vjp: an output is ${y.dtype}, which has no gradient`);
  if (!sameShape(y.shape, g.shape) || !isFloat(g.dtype))
    throw new RangeError(
      `vjp: the cotangent of an output ${show(y.shape)} is ${show(g.shape)} ${g.dtype}; give floats of the output's shape`,
    );
  return build.cast(g.node, computeType(y.dtype));
}

/** The gradient rule of a function of its own; see {@link custom}. */
export interface CustomRule<I extends readonly Tensor[]> {
  /** Maps g = dL/dy, the output y and the inputs to dL/dx for each input, or to null where there is none. */
  readonly vjp: (g: Tensor, y: Tensor, ...inputs: I) => readonly (Tensor | null)[];
}

/**
 * A function of tensors with a gradient rule of its own, in place of the one that follows from its operations: for implicit
 * gradients, straight-through estimators, or what is more exact on paper. The rule is made of tensor operations, so it can be
 * differentiated again. Tensors that `forward` captures instead of taking them as inputs get no gradient. When a gradient is
 * asked for, throws unless the rule gives one tensor of the input's shape, or null, for each input.
 *
 * ```ts
 * const round = custom((x: Tensor) => x.add(0.5).floor(), { vjp: (g) => [g] }); // straight through
 * ```
 */
export function custom<I extends readonly Tensor[]>(
  forward: (...inputs: I) => Tensor,
  rule: CustomRule<I>,
): (...inputs: I) => Tensor {
  checkFunction("custom", forward, "one from tensors to a tensor, then { vjp }");
  checkFunction("custom: vjp", checkOptions("custom", rule, "{ vjp: (g, y, x) => [g] }", ["vjp"]).vjp, "one");
  return (...inputs) => {
    const [value] = checkTensors("custom: the result of forward", [forward(...checkInputs(inputs))]) as [
      Tensor,
    ];
    const inner = (g: Tensor["node"]): (Tensor["node"] | null)[] => {
      const parts = rule.vjp(new Tensor(g, y.device), y, ...inputs);
      return checkParts(parts, inputs).map((part) => part && part.node);
    };
    const node = build.marked(value.node, { inputs: inputs.map((x) => x.node), vjp: inner });
    const y = new Tensor(node, value.device ?? deviceOf(inputs));
    return y;
  };
}

function checkInputs<I extends readonly Tensor[]>(inputs: I): I {
  checkTensors("custom: inputs", inputs);
  return inputs;
}

function checkParts(
  parts: readonly (Tensor | null)[],
  inputs: readonly Tensor[],
): readonly (Tensor | null)[] {
  const fits =
    Array.isArray(parts) &&
    parts.length === inputs.length &&
    parts.every(
      (part, i) => part === null || (part instanceof Tensor && sameShape(part.shape, inputs[i]!.shape)),
    );
  if (fits) return parts.map((part, i) => part && part.cast(computeType(inputs[i]!.dtype)));
  const given = Array.isArray(parts)
    ? `[${parts.map((part) => (part instanceof Tensor ? show(part.shape) : String(part))).join(", ")}]`
    : String(parts);
  throw new TypeError(
    `custom: vjp gave ${given} for inputs of shapes ${inputs.map(({ shape }) => show(shape)).join(", ")}; ` +
      "give a list with a tensor of the input's shape, or null, for each input",
  );
}
