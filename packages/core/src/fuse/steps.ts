/** From drafts to steps over numbered values: every node in memory is a value; operands' buffers are value numbers. */
import { type Instr, type LibraryCall, type LoopKernel, type Operand, type Step } from "../kernel.ts";
import { isOp, type Node } from "../node.ts";
import { contiguousStrides } from "../views.ts";
import type { Fused, Hints } from "../fuse.ts";
import { bytesOf, type Draft, type LibraryDraft } from "./draft.ts";
import { canonical, emitRaw, type Home, type Homes, mergesWith, operand, regroupOperand } from "./emit.ts";
import { libraryCall, type LibraryNode, resultShapes } from "./library.ts";
import { aliasBase } from "./space.ts";

/** Something in memory while a program runs. */
export interface Value {
  readonly node: Node;
  readonly bytes: number;
}

/** A step, what must run before it, and why it looks as it does. */
export interface Work {
  step: Step;
  readonly needs: Set<Work>;
  readonly rules: ReadonlySet<string>;
}

export interface Steps {
  readonly works: Work[];
  readonly values: readonly Value[];
  /** The value that a root is in. */
  valueOf(node: Node): number;
}

/** Builds the steps; null when an operand cannot be viewed after all, in which case `hints` now says what to change. */
export function toSteps(fused: Fused, slots: ReadonlyMap<Node, number>, hints: Hints): Steps | null {
  const homes = new HomeTable(fused, slots);
  const works = new Map<Draft, Work>();
  for (const draft of fused.drafts) {
    const step = draft.type === "loop" ? canonical(emitRaw(draft, homes)) : emitCall(draft, homes, hints);
    if (!step) return null;
    works.set(draft, { step, needs: new Set(), rules: draft.rules });
  }
  for (const [draft, work] of works) for (const need of draft.needs) work.needs.add(works.get(need)!);
  return { works: [...works.values()], values: homes.values, valueOf: (node) => homes.of(node).value };
}

/** Numbers the values, and knows in which axis order each is stored. */
class HomeTable implements Homes {
  readonly values: Value[] = [];
  readonly #fused: Fused;
  readonly #slots: ReadonlyMap<Node, number>;
  readonly #homes = new Map<Node, Home>();

  constructor(fused: Fused, slots: ReadonlyMap<Node, number>) {
    this.#fused = fused;
    this.#slots = slots;
    for (const [view, node] of fused.layouts) {
      if (!isOp(view, "permute")) throw new Error(`plan: ${view.op} is no axis order to store in`);
      const own = contiguousStrides(view.shape);
      const strides = new Array<number>(own.length);
      view.attrs.order.forEach((axis, i) => (strides[axis] = own[i]!));
      const value = this.fresh(node);
      this.#homes.set(node, { value, strides });
      this.#homes.set(view, { value, strides: own });
    }
  }

  fresh(node: Node, bytes: number = bytesOf(node)): number {
    return this.values.push({ node, bytes }) - 1;
  }

  of(node: Node): Home {
    const known = this.#homes.get(node);
    if (known) return known;
    const base = aliasBase(node, (n) => this.#fused.inMemory(n));
    const value = base === node ? this.fresh(node) : this.of(base).value;
    const home = { value, strides: contiguousStrides(node.shape) };
    this.#homes.set(node, home);
    return home;
  }

  slot(scalar: Node): number {
    return this.#slots.get(scalar)!;
  }
}

function emitCall(draft: LibraryDraft, homes: HomeTable, hints: Hints): LibraryCall | null {
  const inputs: Operand[] = [];
  for (const { node, space, edge } of draft.operands) {
    const raw = operand(edge.site, edge.site.node, homes.of(edge.site.node));
    const groups = node.shape.map((_, origin) =>
      space.origin.flatMap((from, axis) => (from === origin ? [axis] : [])),
    );
    const whole = groups.every((group) =>
      group.every((axis, i) => i === 0 || mergesWith(raw.view, group[i - 1]!, axis, space.extents[axis]!)),
    );
    if (!whole) {
      hints.memory.add(node);
      return null;
    }
    inputs.push(regroupOperand(raw, groups));
  }
  const call = draft.node as LibraryNode;
  const outputs = resultShapes(call).map((shape, index): Operand => {
    const node = draft.outputs.find((output) => !isOp(output, "pick") || output.attrs.index === index);
    const { value, strides } = node
      ? homes.of(node)
      : { value: homes.fresh(call, bytesOf({ ...call, shape })), strides: contiguousStrides(shape) };
    return { buffer: value, dtype: call.dtype, view: { offset: 0, strides } };
  });
  return libraryCall(call, inputs, outputs);
}

/** All operands of a step: what it reads, what it writes. */
export function operandsOfStep(step: Step): { reads: readonly Operand[]; writes: readonly Operand[] } {
  const loads = (body: readonly Instr[]): Operand[] => body.flatMap((i) => (i.op === "load" ? [i.from] : []));
  if (step.type === "loop") return { reads: loads(step.body), writes: step.stores.map((s) => s.to) };
  const epilogue = step.name === "matmul" ? step.params.epilogue : undefined;
  return {
    reads: [...step.inputs, ...loads(epilogue?.body ?? [])],
    writes: [...step.outputs, ...(epilogue?.stores.map((s) => s.to) ?? [])],
  };
}

/** The step with every operand's buffer replaced. */
export function mapBuffers(step: Step, to: (value: number) => number): Step {
  const map = (from: Operand): Operand => ({ ...from, buffer: to(from.buffer) });
  const body = (list: readonly Instr[]): Instr[] =>
    list.map((i) => (i.op === "load" ? { ...i, from: map(i.from) } : i));
  if (step.type === "loop") {
    const kernel: LoopKernel = {
      ...step,
      body: body(step.body),
      stores: step.stores.map((s) => ({ ...s, to: map(s.to) })),
    };
    return kernel;
  }
  const call = { ...step, inputs: step.inputs.map(map), outputs: step.outputs.map(map) } as LibraryCall;
  if (call.name !== "matmul" || !call.params.epilogue) return call;
  const { epilogue } = call.params;
  const stores = epilogue.stores.map((s) => ({ ...s, to: map(s.to) }));
  return { ...call, params: { ...call.params, epilogue: { body: body(epilogue.body), stores } } };
}
