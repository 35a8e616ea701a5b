/**
 * Comparison of steps, whatever they consist of. Comparing is cheaper than making keys: what differs is found early, and nothing is
 * allocated.
 * @module
 */
import { hashed } from "./hashes.ts";
import { epilogueOf, type Instr, type LibraryCall, type Operand, partsOf, type Step, type Store } from "./kernel.ts"; // prettier-ignore

/** Whether two plain values are equal, numbers bit for bit; properties that are undefined count as missing. */
export function alike(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || a === null || a === b) return Object.is(a, b);
  if (typeof b !== "object" || b === null) return false;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!alike(a[i], b[i])) return false;
    return true;
  }
  const [one, other] = [a, b] as Readonly<Record<string, unknown>>[];
  for (const key in one) if (!alike(one[key], other![key])) return false;
  for (const key in other) if (other[key] !== undefined && one![key] === undefined) return false;
  return true;
}

/** Whether two instructions are equal, whatever they load; floats bit for bit. */
export function sameInstr(a: Instr, b: Instr): boolean {
  if (a === b) return true;
  if (a.op !== b.op || a.dtype !== b.dtype) return false;
  switch (a.op) {
    case "load":
    case "product":
      return true;
    case "const":
      return Object.is(a.value, (b as typeof a).value);
    case "scalar":
      return a.slot === (b as typeof a).slot;
    case "index":
      return a.axis === (b as typeof a).axis;
    case "cast":
      return a.to === (b as typeof a).to && a.a === (b as typeof a).a;
    case "reduce":
      return a.kind === (b as typeof a).kind && a.a === (b as typeof a).a;
    default: {
      const [x, y] = [a, b] as { readonly a: number; readonly b?: number; readonly c?: number }[];
      return x!.a === y!.a && x!.b === y!.b && x!.c === y!.c;
    }
  }
}

/** Equal for steps that differ in their buffers alone, and different for most others. */
export function sketchOf(step: Step): number {
  if (step.type === "loop") return hashOfStores(hashOfBody(hashOf(hashOf(1, step.outer), step.inner), step.body), step.stores); // prettier-ignore
  let hash = step.name.length;
  const params = step.params as Readonly<Record<string, unknown>>;
  for (const key in params) if (typeof params[key] === "number") hash = hashed(hash, params[key]);
  for (const operand of step.inputs) hash = hashOfOperand(hash, operand);
  for (const operand of step.outputs) hash = hashOfOperand(hash, operand);
  const epilogue = epilogueOf(step);
  return epilogue ? hashOfStores(hashOfBody(hash, epilogue.body), epilogue.stores) : hash;
}

function hashOf(hash: number, numbers: readonly number[]): number {
  for (let i = 0; i < numbers.length; i++) hash = hashed(hash, numbers[i]!);
  return hashed(hash, -1);
}

const hashOfOperand = (hash: number, { view }: Operand): number =>
  hashOf(hashed(hash, view.offset), view.strides);

function hashOfBody(hash: number, body: readonly Instr[]): number {
  for (let i = 0; i < body.length; i++) {
    const instr = body[i]!;
    if (instr.op === "load") hash = hashOfOperand(hash, instr.from);
  }
  return hashed(hash, body.length);
}

function hashOfStores(hash: number, stores: readonly Store[]): number {
  for (let i = 0; i < stores.length; i++) hash = hashOfOperand(hash, stores[i]!.to);
  return hash;
}

/** The buffers of a step, in order of appearance. */
export function buffersOf(step: Step): number[] {
  const order: number[] = [];
  eachOperand(step, ({ buffer }) => {
    if (!order.includes(buffer)) order.push(buffer);
  });
  return order;
}

/** Calls `use` for each operand of a step, in the order in which `buffersIfAlike` compares them. */
function eachOperand(step: Step, use: (operand: Operand) => void): void {
  const own = (operand: Operand): void => {
    use(operand);
    partsOf(operand).forEach(use);
  };
  const loops = (body: readonly Instr[], stores: readonly Store[]): void => {
    for (let i = 0; i < body.length; i++) {
      const instr = body[i]!;
      if (instr.op === "load") own(instr.from);
    }
    for (let i = 0; i < stores.length; i++) own(stores[i]!.to);
  };
  if (step.type === "loop") return loops(step.body, step.stores);
  const epilogue = epilogueOf(step);
  if (epilogue) loops(epilogue.body, epilogue.stores);
  step.inputs.forEach(own);
  step.outputs.forEach(own);
}

/** The buffers of `step` in order of appearance if it differs from `known`, whose buffers are `order`, in buffers alone; otherwise null. */
export function buffersIfAlike(known: Step, order: readonly number[], step: Step): number[] | null {
  const comparison = new Comparison(order);
  return comparison.steps(known, step) && comparison.own.length === order.length ? comparison.own : null;
}

/** Compares two steps, of which the first has the buffers `order`. */
class Comparison {
  /** The buffers of the second, as far as it was compared, in order of appearance. */
  readonly own: number[] = [];
  readonly #order: readonly number[];

  constructor(order: readonly number[]) {
    this.#order = order;
  }

  steps(a: Step, b: Step): boolean {
    if (a.type === "loop")
      return (
        b.type === "loop" &&
        sameNumbers(a.outer, b.outer) &&
        sameNumbers(a.inner, b.inner) &&
        this.#loops(a, b)
      );
    if (b.type === "loop" || a.name !== b.name || !this.#params(a, b)) return false;
    return this.#operands(a.inputs, b.inputs) && this.#operands(a.outputs, b.outputs);
  }

  #params(a: LibraryCall, b: LibraryCall): boolean {
    if (a.name !== "matmul" || b.name !== "matmul") return alike(a.params, b.params);
    const [{ epilogue, ...rest }, { epilogue: other, ...otherRest }] = [a.params, b.params];
    return alike(rest, otherRest) && (epilogue && other ? this.#loops(epilogue, other) : epilogue === other);
  }

  #loops(
    a: { readonly body: readonly Instr[]; readonly stores: readonly Store[] },
    b: { readonly body: readonly Instr[]; readonly stores: readonly Store[] },
  ): boolean {
    if (a.body.length !== b.body.length || a.stores.length !== b.stores.length) return false;
    for (let i = 0; i < a.body.length; i++) {
      const [one, other] = [a.body[i]!, b.body[i]!];
      if (!sameInstr(one, other)) return false;
      if (one.op === "load" && other.op === "load" && !this.#operand(one.from, other.from)) return false;
    }
    for (let i = 0; i < a.stores.length; i++) {
      const [one, other] = [a.stores[i]!, b.stores[i]!];
      if (one.value !== other.value || !this.#operand(one.to, other.to)) return false;
    }
    return true;
  }

  #operands(a: readonly Operand[], b: readonly Operand[]): boolean {
    if (a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!this.#operand(a[i]!, b[i]!)) return false;
    return true;
  }

  #operand(a: Operand, b: Operand): boolean {
    const [v, w] = [a.view, b.view];
    if (a.dtype !== b.dtype || v.offset !== w.offset || !sameNumbers(v.strides, w.strides)) return false;
    if (v !== w && !(alike(v.moving, w.moving) && alike(v.valid, w.valid))) return false;
    return this.#buffers(a.buffer, b.buffer) && this.#quantized(a.quantized, b.quantized);
  }

  #buffers(a: number, b: number): boolean {
    let place = this.own.indexOf(b);
    if (place < 0) place = this.own.push(b) - 1;
    return this.#order[place] === a;
  }

  #quantized(a: Operand["quantized"], b: Operand["quantized"]): boolean {
    if (a === undefined || b === undefined) return a === b;
    const [{ scales, biases, ...rest }, { scales: otherScales, biases: otherBiases, ...otherRest }] = [a, b];
    if (!alike(rest, otherRest) || !this.#operand(scales, otherScales)) return false;
    return biases && otherBiases ? this.#operand(biases, otherBiases) : biases === otherBiases;
  }
}

function sameNumbers(a: readonly number[], b: readonly number[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
