/** From a lowered graph to a program: fuse, emit, order, give every value its buffer. */
import {
  type Backend,
  type BufferSpec,
  mapBuffers,
  operandsOfStep,
  type Program,
  type Step,
} from "@tiedlora/kernels";
import { fuse, type Fused, type Work } from "./fuse.ts";
import { bytesOf } from "./fuse/storage.ts";
import { assignSlots, sharesViews } from "./memory.ts";
import { isOp, Node, type Storage, topological } from "./node.ts";
import { runsAfter, schedule, type Uses, usesOf } from "./order.ts";
import { product } from "./shape.ts";

export interface Source {
  readonly roots: readonly Node[];
  readonly updates: readonly { readonly storage: Storage; readonly value: Node }[];
  readonly nodes: ReadonlySet<Node>;
  /** Leaves, in the order in which a submission gives them. */
  readonly storages: readonly Storage[];
  readonly data: readonly Node[];
  readonly slots: ReadonlyMap<Node, number>;
  readonly backend: Backend;
  readonly fusion: boolean;
}

/** A program, and what its inputs and outputs are in terms of a submission's leaves. */
export interface Layout {
  readonly program: Program;
  /** Why each step looks as it does: names of fusion rules. */
  readonly rules: readonly (readonly string[])[];
  readonly inputs: readonly { readonly from: "storage" | "data"; readonly index: number }[];
  /** In order: an input updated in place, a fresh storage, or memory that replaces a storage's. */
  readonly outputs: readonly { readonly to: "input" | "fresh" | "replace"; readonly index: number }[];
  /** Storages to be allocated for each submission. */
  readonly fresh: readonly { readonly bytes: number; readonly name: string }[];
  /** For each root, where its value is. */
  readonly results: readonly number[];
  /** Which of the graph's host data the program reads. */
  readonly usesData: readonly boolean[];
}

export function assemble(source: Source): Layout {
  const destinations = chooseDestinations(source);
  const { backend, slots, fusion, nodes } = source;
  const fused = fuse(topological([...destinations.computed]), {
    roots: destinations.computed,
    unfused: fusion ? null : nodes,
    maxOperands: backend.caps.maxOperands,
    slots,
    accelerates: (call) => backend.accelerates(call),
  });
  return new Assembly(source, destinations, fused).layout();
}

// --- where roots and updated values go

interface Destinations {
  /** Nodes to be computed into memory, each with one place to go. */
  readonly computed: Set<Node>;
  readonly fresh: { readonly node: Node; readonly bytes: number }[];
  readonly updates: { readonly storage: Storage; readonly value: Node }[];
  readonly results: Layout["results"];
}

/** A node of its own that has the value of `node`: to be written to a second place, or out of a leaf. */
const copyOf = (node: Node): Node => new Node("reshape", {}, [node], node.shape, node.dtype);

function chooseDestinations({ roots, updates }: Source): Destinations {
  const computed = new Set<Node>();
  const fresh: Destinations["fresh"] = [];
  const known = new Map<Node, Layout["results"][number]>();
  const results = roots.map((node) => {
    let result = known.get(node);
    if (result !== undefined) return result;
    // a copy even of what is memory already: that may be a parameter's, and change
    const value = isOp(node, "buffer") || isOp(node, "data") ? copyOf(node) : node;
    result = fresh.push({ node: value, bytes: bytesOf(value) }) - 1;
    if (product(value.shape) > 0) computed.add(value);
    known.set(node, result);
    return result;
  });
  const writes: Destinations["updates"] = [];
  for (const { storage, value: node } of updates) {
    if (product(node.shape) === 0 || (isOp(node, "buffer") && node.attrs.storage === storage)) continue;
    const value = isOp(node, "buffer") || isOp(node, "data") || computed.has(node) ? copyOf(node) : node;
    computed.add(value);
    writes.push({ storage, value });
  }
  return { computed, fresh, updates: writes, results };
}

// --- buffers

class Assembly {
  readonly #source: Source;
  readonly #to: Destinations;
  readonly #fused: Fused;
  readonly #buffers: BufferSpec[] = [];
  readonly #bufferOf = new Map<number, number>(); // by value
  readonly #inputs: { from: "storage" | "data"; index: number }[] = [];
  readonly #outputs: Layout["outputs"][number][] = [];
  /** The program's input for a storage, by its index. */
  readonly #inputOf = new Map<number, number>();

  constructor(source: Source, to: Destinations, fused: Fused) {
    this.#source = source;
    this.#to = to;
    this.#fused = fused;
  }

  layout(): Layout {
    const { storages, data } = this.#source;
    const leafValues = new Map<Storage | Node, number>();
    const touched = new Set(
      this.#fused.works.flatMap(({ step }) => operandsOfStep(step).reads.map((r) => r.buffer)),
    );
    this.#fused.values.forEach((node, value) => {
      if (!touched.has(value)) return;
      const bytes = bytesOf(node);
      if (isOp(node, "buffer")) {
        leafValues.set(node.attrs.storage, value);
        this.#bufferOf.set(value, this.#addInput("storage", storages.indexOf(node.attrs.storage), bytes));
      } else if (isOp(node, "data")) {
        this.#bufferOf.set(value, this.#addInput("data", data.indexOf(node), bytes));
      }
    });
    const uses = usesOf(this.#fused.works);
    const inPlace = this.#to.updates.map(({ storage, value }) =>
      tryInPlace(uses, leafValues.get(storage), this.#fused.valueOf(value)),
    );
    this.#to.updates.forEach((update, i) => this.#place(update, inPlace[i]!));
    this.#to.fresh.forEach(({ node, bytes }, index) => {
      if (bytes > 0) this.#addOutput("fresh", index, node);
    });
    const order = schedule(this.#fused, new Set(this.#bufferOf.keys()));
    return this.#finish(order);
  }

  #addInput(from: "storage" | "data", index: number, bytes: number): number {
    this.#inputs.push({ from, index });
    const buffer = this.#buffers.push({ kind: "input", bytes }) - 1;
    if (from === "storage") this.#inputOf.set(index, buffer);
    return buffer;
  }

  #place({ storage, value }: Destinations["updates"][number], inPlace: boolean): void {
    const index = this.#source.storages.indexOf(storage);
    if (!inPlace) return this.#addOutput("replace", index, value);
    const bytes = bytesOf(value);
    const input = this.#inputOf.get(index) ?? this.#addInput("storage", index, bytes);
    this.#buffers.push({ kind: "output", bytes, aliasOf: input });
    this.#outputs.push({
      to: "input",
      index: this.#inputs.findIndex((x) => x.from === "storage" && x.index === index),
    });
    this.#bufferOf.set(this.#fused.valueOf(value), input);
  }

  #addOutput(to: "fresh" | "replace", index: number, node: Node): void {
    this.#bufferOf.set(this.#fused.valueOf(node), this.#buffers.length);
    this.#buffers.push({ kind: "output", bytes: bytesOf(node) });
    this.#outputs.push({ to, index });
  }

  #finish(order: readonly Work[]): Layout {
    const { data, slots } = this.#source;
    const steps: Step[] = order.map((work) => work.step);
    const { slotOf, bytes } = assignSlots(steps, this.#fused.values, new Set(this.#bufferOf.keys()));
    const firstTemp = this.#buffers.length;
    for (const size of bytes) this.#buffers.push({ kind: "temp", bytes: size });
    const to = (value: number): number => this.#bufferOf.get(value) ?? firstTemp + slotOf.get(value)!;
    return {
      program: {
        buffers: this.#buffers,
        scalars: slots.size,
        steps: steps.map((step) => mapBuffers(step, to)),
      },
      rules: order.map((work) => [...work.rules]),
      inputs: this.#inputs,
      outputs: this.#outputs,
      fresh: this.#to.fresh.map(({ node, bytes: size }) => ({
        bytes: size,
        name: `the result of ${node.op}`,
      })),
      results: this.#to.results,
      usesData: data.map((_, i) => this.#inputs.some(({ from, index }) => from === "data" && index === i)),
    };
  }
}

/**
 * Whether a new value can be written over the old one: every other reader of the old can run before, and the step that
 * computes the new reads the old, if at all, element by element where it writes. If so, the readers now do run before.
 */
function tryInPlace({ writer, readers }: Uses, old: number | undefined, fresh: number): boolean {
  const work = writer.get(fresh)!;
  const others = [...((old === undefined ? undefined : readers.get(old)) ?? [])];
  if (others.some((other) => other !== work && runsAfter(other, work))) return false;
  if (others.includes(work) && !sharesViews(work.step, old!, fresh)) return false;
  for (const other of others) if (other !== work) work.needs.add(other);
  return true;
}
