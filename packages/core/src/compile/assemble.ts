/** Turns a lowered graph into a program: fuses nodes into steps, orders the steps, and gives every value a buffer. */
import {
  type Backend,
  type BufferSpec,
  type LibraryCall,
  mapBuffers,
  type Program,
  type Target,
} from "@tiedlora/kernels";
import type { Families } from "@tiedlora/kernels/families";
import { hashOf } from "@tiedlora/kernels/hashes";
import { assignTemporaries, sharesViews, type StepValues, valuesOf } from "@tiedlora/kernels/temporaries";
import { type Ordered, runsAfter, schedule, type Uses, usesOf, type Work } from "@tiedlora/kernels/order";
import { bytesOf, isOp, Node, topological } from "../graph.ts";
import { product } from "../shape.ts";
import type { Storage } from "../storage.ts";
import type { Trace } from "../trace.ts";
import { fuse, type Fused } from "./fuse.ts";

export interface Source extends Pick<Trace, "storages" | "data"> {
  readonly roots: readonly Node[];
  readonly updates: readonly { readonly storage: Storage; readonly value: Node }[];
  readonly nodes: ReadonlySet<Node>;
  readonly slots: ReadonlyMap<Node, number>;
  readonly scalars: number;
  readonly backend: Target;
  readonly fusion: boolean;
}

/** A program, and how its inputs and outputs map to the memory of a submission. */
export interface Assembly {
  readonly program: Program;
  /** For each step, the names of the fusion rules that shaped it. */
  readonly rules: readonly (readonly string[])[];
  readonly inputs: readonly { readonly from: "storage" | "data"; readonly index: number }[];
  /** For each output: an input updated in place, a fresh storage, or memory that replaces a storage's. */
  readonly outputs: readonly { readonly to: "input" | "fresh" | "replace"; readonly index: number }[];
  /** Storages to be allocated for each submission. */
  readonly fresh: readonly { readonly bytes: number; readonly name: string }[];
  /** For each root, the index in `fresh` of the storage that holds its value. */
  readonly results: readonly number[];
  /** Which of the graph's host data the program reads. */
  readonly usesData: readonly boolean[];
}

/** An assembly before its steps are in order and values share memory: both depend on which sizes are larger, and nothing else on them. */
export interface Draft extends Omit<Assembly, "program" | "rules"> {
  /** Steps over numbered values, the numbers of steps that must run before, and the rules that shaped it. */
  readonly works: readonly (Ordered & StepValues & Pick<Work, "step"> & { rules: readonly string[] })[];
  /** Bytes of each value; the buffers of values that are no temporaries, by value. */
  readonly bytes: readonly number[];
  readonly buffers: readonly BufferSpec[];
  readonly bufferOf: readonly (readonly [value: number, buffer: number])[];
  readonly scalars: number;
}

/** What was planned, and what the backend said of calls meanwhile: at other sizes, it has to say the same of these calls there. */
export interface Planned {
  readonly draft: Draft;
  readonly asked: readonly { readonly call: LibraryCall; readonly answer: boolean }[];
}

/** What `plan` gives; made of drafts of the same structure at other sizes, if that is possible. */
export function knownOrPlanned(
  { families, backend }: { readonly families: Families<Planned>; readonly backend: Backend },
  { structure, sizes, starts }: Trace,
  plan: (target: Target) => Draft,
): Draft {
  const planned = (): Planned => {
    const asked = new Map<string, Planned["asked"][number]>();
    const accelerates = (call: LibraryCall): boolean => {
      const answer = backend.accelerates(call);
      asked.set(JSON.stringify(call), { call, answer });
      return answer;
    };
    return { draft: plan({ caps: backend.caps, accelerates }), asked: [...asked.values()] };
  };
  const key = { hash: hashOf(structure), structure, sizes: Array.from(sizes).concat(starts) };
  return families.plan(key, planned, ({ asked }) =>
    asked.every(({ call, answer }) => backend.accelerates(call) === answer),
  ).draft;
}

export function assemble(source: Source): Draft {
  const { backend, slots, fusion, nodes } = source;
  const targets = chooseTargets(source);
  const fused = fuse(topological([...targets.computed]), {
    roots: targets.computed,
    unfused: fusion ? null : nodes,
    slots,
    backend,
  });
  return new Assembler(source, targets, fused).draft();
}

/** Orders the steps of a draft, and lets values share memory. */
export function finish({ works, bytes, buffers, bufferOf, scalars, ...rest }: Draft): Assembly {
  const known = new Map(bufferOf);
  const persistent = new Set(known.keys());
  const ordered = schedule(works, bytes, persistent).map((i) => works[i]!);
  const temporaries = assignTemporaries(ordered, bytes, persistent);
  const to = (value: number): number => known.get(value) ?? buffers.length + temporaries.tempOf[value]!;
  const program: Program = {
    buffers: [...buffers, ...temporaries.bytes.map((size): BufferSpec => ({ kind: "temp", bytes: size }))],
    scalars,
    steps: ordered.map(({ step }) => mapBuffers(step, to)),
  };
  return { program, rules: ordered.map(({ rules }) => rules), ...rest };
}

/** Values that are placed into the memory which they update, and which nothing else reads: no copy is needed. */
export function overwriting(roots: readonly Node[], updates: Source["updates"]): Set<Node> {
  const wanted = [...roots, ...updates.map(({ value }) => value)];
  const used = [...wanted, ...topological(wanted).flatMap(({ inputs }) => inputs)];
  const isAlone = ({ storage, value }: Source["updates"][number]): boolean => {
    const isOwn = (node: Node): boolean => isOp(node, "buffer") && node.attrs.storage === storage;
    if (!isOp(value, "place") || !isOwn(value.inputs[0]) || used.filter(isOwn).length > 1) return false;
    return wanted.indexOf(value) === wanted.lastIndexOf(value);
  };
  return new Set(updates.filter(isAlone).map(({ value }) => value));
}

// --- where roots and updated values go

interface Targets {
  /** Nodes to be computed into memory, each to exactly one place. */
  readonly computed: ReadonlySet<Node>;
  /** The distinct roots, and for each root its number among them. */
  readonly fresh: readonly Node[];
  readonly results: readonly number[];
  readonly updates: Source["updates"];
}

function chooseTargets({ roots, updates }: Source): Targets {
  const computed = new Set<Node>();
  /** `node`; or a copy, if it goes to a second place or is a leaf, which may belong to a parameter that changes. */
  const computedOnce = (node: Node): Node => {
    const taken = isOp(node, "buffer") || isOp(node, "data") || computed.has(node);
    const value = taken ? new Node("reshape", {}, [node], node.shape, node.dtype) : node;
    if (product(node.shape) > 0) computed.add(value);
    return value;
  };
  const distinct = [...new Set(roots)];
  const changing = updates.filter(
    ({ storage, value }) =>
      product(value.shape) > 0 && !(isOp(value, "buffer") && value.attrs.storage === storage),
  );
  return {
    computed,
    fresh: distinct.map(computedOnce),
    results: roots.map((root) => distinct.indexOf(root)),
    updates: changing.map(({ storage, value }) => ({ storage, value: computedOnce(value) })),
  };
}

// --- buffers

class Assembler {
  readonly #source: Source;
  readonly #targets: Targets;
  readonly #fused: Fused;
  readonly #buffers: BufferSpec[] = [];
  readonly #bufferOf = new Map<number, number>(); // by value
  readonly #inputs: (Assembly["inputs"][number] & { readonly buffer: number })[] = [];
  readonly #outputs: Assembly["outputs"][number][] = [];

  constructor(source: Source, targets: Targets, fused: Fused) {
    this.#source = source;
    this.#targets = targets;
    this.#fused = fused;
  }

  draft(): Draft {
    const { works, values } = this.#fused;
    const { fresh, results, updates } = this.#targets;
    const uses = usesOf(works);
    const { storages, data } = this.#source;
    values.forEach((node, value) => {
      if (!uses.readers.has(value)) return;
      if (isOp(node, "buffer")) this.#addInput("storage", storages.indexOf(node.attrs.storage), node, value);
      if (isOp(node, "data")) this.#addInput("data", data.indexOf(node), node, value);
    });
    for (const update of updates) {
      const index = storages.indexOf(update.storage);
      if (this.#tryInPlace(update, uses)) this.#overwrite(index, update.value);
      else this.#addOutput("replace", index, update.value);
    }
    fresh.forEach((node, index) => {
      if (bytesOf(node) > 0) this.#addOutput("fresh", index, node);
    });
    const numbers = new Map(works.map((work, i) => [work, i]));
    const needsOf = ({ needs }: Work): number[] => Array.from(needs, (need) => numbers.get(need)!);
    return {
      works: works.map((work) => {
        const { step, rules } = work;
        return { step, needs: needsOf(work), rules: [...rules], ...valuesOf(step) };
      }),
      bytes: values.map(bytesOf),
      buffers: this.#buffers,
      bufferOf: [...this.#bufferOf],
      scalars: this.#source.scalars,
      inputs: this.#inputs,
      outputs: this.#outputs,
      fresh: fresh.map((node) => ({ bytes: bytesOf(node), name: `the result of ${node.op}` })),
      results,
      usesData: data.map((_, i) => this.#inputs.some(({ from, index }) => from === "data" && index === i)),
    };
  }

  #addInput(from: "storage" | "data", index: number, node: Node, value: number): number {
    const buffer = this.#buffers.push({ kind: "input", bytes: bytesOf(node) }) - 1;
    this.#bufferOf.set(value, buffer);
    return this.#inputs.push({ from, index, buffer }) - 1;
  }

  #addOutput(to: "fresh" | "replace", index: number, node: Node): void {
    this.#bufferOf.set(this.#fused.idOf(node), this.#buffers.length);
    this.#buffers.push({ kind: "output", bytes: bytesOf(node) });
    this.#outputs.push({ to, index });
  }

  /** Makes the output share the buffer of an input: the memory of a storage. */
  #overwrite(storage: number, node: Node): void {
    const value = this.#fused.idOf(node);
    let input = this.#inputs.findIndex(({ from, index }) => from === "storage" && index === storage);
    if (input < 0) input = this.#addInput("storage", storage, node, value);
    const { buffer } = this.#inputs[input]!;
    this.#bufferOf.set(value, buffer);
    this.#buffers.push({ kind: "output", bytes: bytesOf(node), aliasOf: buffer });
    this.#outputs.push({ to: "input", index: input });
  }

  /**
   * Whether a new value can be written over the old one: every other reader of the old value can run before the step that computes
   * the new one, and that step reads old elements, if at all, only where it writes. If so, it now waits for the other readers.
   */
  #tryInPlace({ storage, value }: Source["updates"][number], { writer, readers }: Uses): boolean {
    const { values, idOf } = this.#fused;
    const old = values.findIndex((node) => isOp(node, "buffer") && node.attrs.storage === storage);
    const fresh = idOf(value);
    if (isOp(value, "place") && value.attrs.onto) return isOp(value.inputs[0], "buffer"); // else, several steps write it
    const work = writer.get(fresh)!;
    const reading = readers.get(old) ?? new Set();
    const others = [...reading].filter((other) => other !== work);
    if (runsAfter(others, work)) return false;
    if (reading.has(work) && !sharesViews(work.step, old, fresh)) return false;
    for (const other of others) work.needs.add(other);
    return true;
  }
}
