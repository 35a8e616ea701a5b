/** The cost of one step of a program: its arithmetic operations and its minimum memory traffic. */
import { BYTES } from "./dtype.ts";
import {
  type Instr,
  type LibraryCall,
  type Operand,
  operandsOf,
  operandsOfStep,
  partsOf,
  type Step,
} from "./kernel.ts";
import { product } from "./shape.ts";

/** The name, arithmetic operations and minimum memory traffic of a step. */
export interface Cost {
  /** The kind of step with its sizes: "matmul 1024×384×1536 + epilogue", "rows 1024 of 384", "elements 1024×384". */
  readonly name: string;
  /** Arithmetic operations; a multiply and an add count as two. */
  readonly flops: number;
  /** The fewest bytes that the step can read and write: every distinct element of every operand once. */
  readonly bytes: number;
}

/** The name of a step, its arithmetic operations and its minimum memory traffic. */
export function costOf(step: Step): Cost {
  const { reads, writes } = operandsOfStep(step);
  if (step.type === "loop") {
    const extents = [...step.outer, ...step.inner];
    const [outer, inner] = [step.outer.join("×") || "1", step.inner.join("×")];
    return {
      name: inner ? `rows ${outer} of ${inner}` : `elements ${outer}`,
      flops: product(extents) * arithmetic(step.body),
      bytes: [...reads, ...writes].reduce((sum, operand) => sum + touched(operand, extents), 0),
    };
  }
  const { size, flops, shapes } = libraryCost(step);
  const own = [...step.inputs, ...step.outputs];
  const result = shapes.at(-1)!;
  const parts = own.flatMap(partsOf); // counted with the operands that they belong to
  const bytes = [...reads, ...writes].reduce((sum, operand) => {
    if (parts.includes(operand)) return sum;
    const at = own.indexOf(operand);
    return sum + touched(operand, at < 0 ? result : shapes[at]!);
  }, 0);
  const epilogue = step.name === "matmul" ? step.params.epilogue : undefined;
  return {
    name: `${step.name} ${size}${epilogue ? " + epilogue" : ""}`,
    flops: flops + (epilogue ? product(result) * arithmetic(epilogue.body) : 0),
    bytes,
  };
}

/** Bytes of the distinct elements that an operand reaches over `extents`. */
function touched({ view, dtype, quantized }: Operand, extents: readonly number[]): number {
  const lengths = view.strides.map((stride, axis) => {
    const [from, to] = view.valid?.[axis] ?? [0, extents[axis]!];
    return stride === 0 ? 1 : to - from;
  });
  if (!quantized) return product(lengths) * BYTES[dtype];
  const { bits, group, scales, biases } = quantized;
  const perGroup = BYTES[scales.dtype] + (biases ? BYTES[biases.dtype] : 0);
  return product(lengths) * (bits / 8 + perGroup / group);
}

/** Arithmetic operations of a body for each element; loads, constants and casts do not count. */
function arithmetic(body: readonly Instr[]): number {
  return body.filter((instr) => operandsOf(instr).length > 0 && instr.op !== "cast").length;
}

/** The sizes of a library call, its arithmetic operations, and the shapes of its inputs, then outputs. */
function libraryCost(call: LibraryCall): {
  size: string;
  flops: number;
  shapes: readonly (readonly number[])[];
} {
  switch (call.name) {
    case "matmul": {
      const { batch, m, n, k } = call.params;
      const shapes = k.flatMap((depth) => [
        [...batch, m, depth],
        [...batch, depth, n],
      ]);
      const depth = k.reduce((a, b) => a + b, 0);
      const size = [...batch, m, k.join("+"), n].join("×");
      return { size, flops: 2 * product(batch) * m * n * depth, shapes: [...shapes, [...batch, m, n]] };
    }
    case "attention":
    case "attentionGrad": {
      const { batch, heads, kvHeads, q, kv, d, causal, bias } = call.params;
      const [Q, K, L] = [
        [batch, heads, q, d],
        [batch, kvHeads, kv, d],
        [batch, heads, q],
      ];
      const inputs = [Q, K, K, ...(bias ? [[batch, heads, q, kv]] : [])];
      const forward = call.name === "attention";
      const pairs = batch * heads * q * kv * (causal ? 0.5 : 1); // 2 matmuls (q·k, p·v); backward 5, q·k again
      const shapes = forward ? [...inputs, Q, L] : [...inputs, Q, L, Q, Q, K, K];
      return { size: `${Q.join("×")}, ${kv} keys`, flops: (forward ? 4 : 10) * pairs * d, shapes };
    }
    case "gather":
    case "scatterAdd": {
      const { rows, cols, count } = call.params;
      const gather = call.name === "gather";
      // A gather reads only the rows of the table that are looked up.
      const shapes = gather
        ? [[Math.min(rows, count), cols], [count], [count, cols]]
        : [[count], [count, cols], [rows, cols]];
      return { size: `${count} of ${rows}×${cols}`, flops: gather ? 0 : count * cols, shapes };
    }
  }
}
