/**
 * Fusion: from nodes to steps. First `stored.ts` decides which nodes are stored in memory. Each of them gets a kernel, which
 * also computes the nodes that are not stored (`emit.ts`). Then the named rules below join kernels, two at a time, as long
 * as one space fits both. With fusion off there is a kernel for every node, and none are joined.
 */
import type { LibraryCall, Step } from "@tiedlora/kernels";
import { epilogueOver, loopKernel } from "@tiedlora/kernels/canonical";
import { less, same } from "@tiedlora/kernels/family";
import { JoiningOrder } from "@tiedlora/kernels/joining";
import type { Work } from "@tiedlora/kernels/order";
import { getOrCreate, reachable } from "@tiedlora/kernels/collections";
import { isOp, isReduction, Node } from "../graph.ts";
import { product } from "../shape.ts";
import { emit, type Emitted, type Memory } from "./emit.ts";
import { descend, isLibrary, isMemory, isMovement, isValue, type LibraryNode } from "./kinds.ts";
import { type CallInput, callInput, libraryCall, outputOperand, resultShapes } from "./library.ts";
import { readsElsewhere } from "./elsewhere.ts";
import { commonSpace, folds, points, rows, samePattern, type Space } from "@tiedlora/kernels/space";
import { chooseStored, LARGEST, type StorageOptions } from "./stored.ts";
import { operandAt } from "@tiedlora/kernels/views";

export interface FuseOptions extends StorageOptions {
  /** The slots of the scalars that are given at run time. */
  readonly slots: ReadonlyMap<Node, number>;
}

export interface Fused {
  readonly works: readonly Work[];
  /** For each value in memory while the program runs, by its number, a node that it holds. */
  readonly values: readonly Node[];
  readonly idOf: (node: Node) => number;
}

/** A step that is still growing: loops, a library call, or a matmul followed by loops over its result. */
interface Kernel {
  /** The nodes that it computes and that other kernels may read, inputs before users. */
  readonly nodes: readonly Node[];
  /** The library call, if the kernel is one or begins with one. */
  readonly call: { readonly node: LibraryNode; readonly inputs: readonly CallInput[] } | null;
  /** The loops; null for a library call that stores its results as they are. */
  readonly emitted: Emitted | null;
  readonly rules: ReadonlySet<string>;
  /** The nodes that it reads from memory. */
  readonly reads: ReadonlySet<Node>;
  /** Nodes that must be computed before it, although it does not read them. */
  readonly gates: readonly Node[];
}

function kernelOf(
  nodes: readonly Node[],
  call: Kernel["call"],
  emitted: Emitted | null,
  rules: ReadonlySet<string> = new Set(),
): Kernel {
  const inputs = call?.inputs ?? [];
  const reads = new Set([...inputs.flatMap((input) => input.bases), ...(emitted?.reads ?? [])]);
  const gates = [...inputs.flatMap((input) => input.gates), ...(emitted?.gates ?? [])];
  return { nodes, call, emitted, rules, reads, gates };
}

/** Rows longer than this are folded in parallel, by a separate kernel, unless there are many rows. */
const LONG_ROW = 65536;
const MANY_ROWS = 16;
/** Kernels with fewer elements than this take longer to start than to run. */
const SMALL = 16384;

/** Turns the nodes of `order` (inputs before users) into steps that compute the roots. */
export function fuse(order: readonly Node[], options: FuseOptions): Fused {
  const fuser = new Fuser(order, options);
  fuser.createKernels();
  if (!options.unfused) {
    fuser.joinProducers();
    fuser.joinReadersOfTheSame();
    fuser.joinSmall();
  }
  return fuser.finish();
}

class Fuser implements Memory {
  readonly #order: readonly Node[];
  readonly #options: FuseOptions;
  /** The nodes that are in memory once they are computed; grows while kernels are created. */
  readonly #stored: Set<Node>;
  readonly #position: Map<Node, number>;
  readonly #picks: readonly Node<"pick">[];
  /** Values in memory by number, and their numbers: by storage, by the first `place` node of a whole, or by node. */
  readonly #values: Node[] = [];
  readonly #numbers = new Map<object, number>();
  readonly #kernels = new Set<Kernel>();
  readonly #sorted = new JoiningOrder<Kernel>();
  readonly #producer = new Map<Node, Kernel>();
  readonly #readers = new Map<Node, Set<Kernel>>();
  /** By kernel: the nodes of other kernels that it needs. Joining moves nodes to other kernels, and makes no more of them. */
  readonly #made = new Map<Kernel, readonly Node[]>();

  constructor(order: readonly Node[], options: FuseOptions) {
    this.#order = order;
    this.#options = options;
    this.#position = new Map(order.map((node, i) => [node, i]));
    this.#picks = order.filter((node) => isOp(node, "pick"));
    this.#stored = chooseStored(order, options);
  }

  // --- Memory

  has(node: Node): boolean {
    return this.#stored.has(node);
  }
  idOf(node: Node): number {
    const whole = descend(node, (n) => isOp(n, "place") && n.attrs.onto);
    const identity: object = isOp(whole, "buffer") ? whole.attrs.storage : whole;
    return getOrCreate(this.#numbers, identity, () => this.#values.push(node) - 1);
  }
  slotOf(node: Node): number {
    return this.#options.slots.get(node)!;
  }

  // --- a kernel for every node that is stored

  createKernels(): void {
    let kernels: Kernel[];
    let known: number;
    do {
      // users first: a node that they cannot read in place has to be stored, and then gets a kernel too
      known = this.#stored.size;
      kernels = this.#order.toReversed().flatMap((node) => {
        if (isLibrary(node)) return [this.#callKernel(node)];
        return this.#stored.has(node) && !isMemory(node) ? [this.#loopKernel(node)] : [];
      });
    } while (this.#stored.size > known); // kernels that were created earlier must read the added nodes too
    for (const kernel of kernels.toReversed()) {
      this.#add(kernel);
      this.#sorted.add(kernel, this.#needs(kernel));
    }
  }

  /** A library call, whose operands are views of memory; an operand that is not such a view gets stored. */
  #callKernel(node: LibraryNode): Kernel {
    const inputs = node.inputs.map((input): CallInput => {
      for (;;) {
        const view = callInput(input, this);
        if (!("store" in view)) return view;
        this.#stored.add(view.store);
      }
    });
    const shapes = resultShapes(node);
    if (shapes.length === 1) return kernelOf([node], { node, inputs }, null);
    const results = shapes.map((shape, index) => {
      const isResult = (n: Node<"pick">): boolean => n.inputs[0] === node && n.attrs.index === index;
      return this.#picks.find(isResult) ?? new Node("pick", { index }, [node], shape, node.dtype);
    });
    return kernelOf(results, { node, inputs }, null);
  }

  /** Loops that compute `node`; an input that they cannot compute gets stored. */
  #loopKernel(node: Node): Kernel {
    for (;;) {
      const emitted = emit([node], spaceOf(node), this);
      const store = "store" in emitted ? emitted.store : this.#tooWide(node, emitted);
      if (!("store" in emitted) && !store) return kernelOf([node], null, emitted);
      if (!store || store === node)
        throw new Error(`plan: no kernel computes a ${node.op} of shape [${node.shape.join(", ")}]`);
      this.#stored.add(store);
    }
  }

  /** What to store if `node` reads too much for one kernel, as it can once more nodes are stored: an input that it computes. */
  #tooWide({ inputs }: Node, { reads }: Emitted): Node | undefined {
    if (reads.size < this.#options.backend.caps.maxOperands) return undefined;
    const sources = inputs.map((input) => descend(input, (n) => isMovement(n) && !this.has(n)));
    return sources.find((source) => !this.has(source) && !isValue(source));
  }

  #add(kernel: Kernel): void {
    this.#kernels.add(kernel);
    for (const node of kernel.nodes) this.#producer.set(node, kernel);
    for (const read of kernel.reads) this.#readersOf(read).add(kernel);
  }

  #remove(kernel: Kernel): void {
    this.#kernels.delete(kernel);
    for (const read of kernel.reads) this.#readersOf(read).delete(kernel);
  }

  #readersOf(node: Node): Set<Kernel> {
    return getOrCreate(this.#readers, node, () => new Set());
  }

  /** The kernels that must run before `kernel`. */
  #needs(kernel: Kernel): Set<Kernel> {
    const isMade = (n: Node): boolean => this.#producer.has(n);
    const maker = (node: Node): Node => descend(node, (n) => !isMade(n) && n.inputs.length > 0);
    const find = (): Node[] => [...kernel.reads, ...kernel.gates].map(maker).filter(isMade);
    const made = getOrCreate(this.#made, kernel, find);
    const needs = new Set(made.map((node) => this.#producer.get(node)!));
    needs.delete(kernel);
    return needs;
  }

  // --- rules: which kernels are joined

  /** Joins kernels with the producers of their inputs: epilogues with a matmul, uses of rows with their fold, several results. */
  joinProducers(): void {
    const callsFirst = (a: Kernel, b: Kernel): number => Number(b.call !== null) - Number(a.call !== null);
    this.#joinEach((kernel) => [...this.#needs(kernel)].sort(callsFirst));
  }

  /** Joins kernels that read the same large value in the same rows. */
  joinReadersOfTheSame(): void {
    this.#joinEach((kernel) => {
      const { call, emitted, reads } = kernel;
      if (call || !emitted) return [];
      const large = [...reads].filter((read) => !less(product(read.shape), points(emitted.space)));
      const others = new Set(large.flatMap((read) => [...this.#readersOf(read)]));
      const isLike = (other: Kernel): boolean =>
        other !== kernel && !other.call && samePattern(other.emitted!.space, emitted.space);
      return this.#sorted.apart(kernel, [...others].filter(isLike));
    });
  }

  /** Joins each kernel with the first candidate that it can be joined with, and repeats this with the joint kernel. */
  #joinEach(candidates: (kernel: Kernel) => readonly Kernel[]): void {
    const grow = (kernel: Kernel): void => {
      for (const other of candidates(kernel)) {
        const joint = other !== kernel && this.#join(other, kernel);
        if (joint) return grow(joint);
      }
    };
    for (const kernel of Array.from(this.#kernels)) if (this.#kernels.has(kernel)) grow(kernel);
  }

  /** Joins small kernels of the same size, e.g. the updates of many small parameters. */
  joinSmall(): void {
    const latest: Kernel[] = []; // of each pattern
    for (const kernel of Array.from(this.#kernels)) {
      if (!kernel.emitted || isLarge(kernel)) continue;
      const { space } = kernel.emitted;
      const found = latest.findIndex((other) => samePattern(other.emitted!.space, space));
      const at = found < 0 ? latest.length : found;
      const before = latest[at];
      latest[at] = (before && this.#join(before, kernel, "smallTogether")) || kernel;
    }
  }

  /** Joins two kernels into one, if that is possible and no slower; otherwise returns null. */
  #join(first: Kernel, second: Kernel, rule?: string): Kernel | null {
    const space = jointSpace(first, second);
    if (!space || this.#sorted.hasBetween(first, second)) return null;
    if (!folds(space) && readsElsewhere(second.nodes, first.nodes, (node) => this.has(node))) return null;
    const nodes = [...first.nodes, ...second.nodes].sort(
      (a, b) => this.#position.get(a)! - this.#position.get(b)!,
    );
    const emitted = emit(nodes, space, this, first.call?.node);
    if ("store" in emitted) return null;
    const rules = new Set([...first.rules, ...second.rules, rule ?? ruleOf(first, second)]);
    const joint = kernelOf(nodes, first.call, emitted, rules);
    const stored = this.#storedOf(nodes, (reader) => reader !== first && reader !== second);
    if (!this.#runsWell(joint, emitted, stored) || this.#delaysOthers(first, second)) return null;
    this.#remove(first);
    this.#remove(second);
    this.#add(joint);
    this.#sorted.join(first, second, joint, this.#needs(joint));
    return joint;
  }

  /** Whether the backend can run a kernel that stores `stored`, and as fast as the kernels that it was joined from. */
  #runsWell(kernel: Kernel, { body, space, results }: Emitted, stored: readonly Node[]): boolean {
    const operands = new Set([...kernel.reads, ...stored]).size + (stored.length === 0 ? 1 : 0);
    if (body.length > LARGEST || operands > this.#options.backend.caps.maxOperands) return false;
    const perPoint = (node: Node): boolean => results.get(node)!.some(({ perRow }) => !perRow);
    const foldsColumns = folds(space) && !space.inner.at(-1); // then loops do not finish one row before the next
    if ((isLong(space) && kernel.nodes.some(perPoint)) || (foldsColumns && stored.some(perPoint)))
      return false;
    const step = kernel.call && this.#step(kernel, stored);
    return !kernel.call || (step !== null && this.#options.backend.accelerates(step as LibraryCall));
  }

  /**
   * Whether joining `first`, if it is small, with `second` would make a large kernel that needs `first` wait for another large
   * kernel: the results of both would be in memory at once. (Chunks of a loss would wait for each other's sums.)
   */
  #delaysOthers(first: Kernel, second: Kernel): boolean {
    const readers = ({ nodes }: Kernel): Kernel[] => nodes.flatMap((node) => [...this.#readersOf(node)]);
    if (isLarge(first) || readers(first).every((reader) => reader === second)) return false;
    const waits = this.#sorted.without(second, first).filter(isLarge);
    const isDelayed = (user: Kernel): boolean => user !== second && !this.#sorted.waitsForAll(user, waits);
    const users = reachable([first], (one) => (isLarge(one) ? [] : readers(one).filter(isDelayed)));
    return [...users].some(isLarge);
  }

  // --- steps

  /** The members of `nodes` that are stored: roots, pieces of a whole, and nodes with a reader that `counts`. */
  #storedOf(nodes: readonly Node[], counts: (reader: Kernel) => boolean = () => true): Node[] {
    const isRead = (node: Node): boolean => isOp(node, "place") || [...this.#readersOf(node)].some(counts);
    return nodes.filter((node) => this.#options.roots.has(node) || isRead(node));
  }

  /** The steps of all kernels that lead to a root. */
  finish(): Fused {
    const producers = [...this.#options.roots].map((root) => this.#producer.get(root)!);
    const needed = reachable(producers, (kernel) => this.#needs(kernel));
    const works = new Map<Kernel, Work>();
    for (const kernel of this.#kernels) {
      if (!needed.has(kernel)) continue;
      const stored = this.#storedOf(kernel.nodes);
      if (stored.length === 0) stored.push(kernel.nodes.at(-1)!); // needed only for ordering
      works.set(kernel, { step: this.#step(kernel, stored)!, needs: new Set(), rules: kernel.rules });
    }
    for (const [kernel, work] of works)
      for (const need of this.#needs(kernel)) work.needs.add(works.get(need)!);
    return { works: [...works.values()], values: this.#values, idOf: (node) => this.idOf(node) };
  }

  /** The step of a kernel; null if the epilogue does not run along the axes of the product. */
  #step({ nodes, call, emitted }: Kernel, stored: readonly Node[]): Step | null {
    const inputs = call?.inputs.map((input) => input.operand) ?? [];
    if (!emitted) {
      const outputs = nodes.map((node) => outputOperand(node, this.idOf(node)));
      return libraryCall(call!.node, inputs, outputs);
    }
    const stores = stored.flatMap((node) =>
      emitted.results.get(node)!.map(({ at, value, perRow }) => {
        return { to: operandAt(node.shape, node.dtype, at, this.idOf(node)), value, perRow };
      }),
    );
    const kernel = { space: emitted.space, body: emitted.body, stores };
    if (!call) return loopKernel(kernel);
    const epilogue = epilogueOver(call.node.shape, kernel);
    return epilogue && libraryCall(call.node, inputs, [], epilogue);
  }
}

/** The space of a single node: its elements; of a reduction, those of its input: summing [4, 8] to [4, 1] has 8 inner. */
function spaceOf(node: Node): Space {
  const { shape } = isReduction(node) ? node.inputs[0] : isOp(node, "place") ? node.inputs.at(-1)! : node;
  const folded = isReduction(node) ? node.attrs.axes : [];
  const axes = shape.flatMap((n, axis) => (n > 1 ? [axis] : []));
  return { extents: axes.map((axis) => shape[axis]!), inner: axes.map((axis) => folded.includes(axis)) };
}

/** A space for two kernels together, or null. For a matmul it is that of its result, if `second` is elementwise on it. */
function jointSpace({ call, emitted }: Kernel, second: Kernel): Space | null {
  if (second.call) return null;
  const after = second.emitted!.space;
  if (!call) return commonSpace(emitted!.space, after);
  const { shape } = call.node;
  if (!isOp(call.node, "matmul") || folds(after) || !same(points(after), product(shape))) return null;
  return { extents: shape, inner: shape.map(() => false) };
}

/** Whether rows are few and long: backends fold each in several parts, and no elementwise work can follow in that kernel. */
function isLong(space: Space): boolean {
  return folds(space) && less(LONG_ROW * rows(space), points(space)) && less(rows(space), MANY_ROWS);
}

/** Whether a kernel is large: a library call, or loops over more than `SMALL` elements. */
const isLarge = ({ call, emitted }: Kernel): boolean => call !== null || less(SMALL, points(emitted!.space));

/** The name of the rule by which two kernels were joined. */
function ruleOf(first: Kernel, second: Kernel): string {
  if (first.call) return "matmulEpilogue";
  const reads = first.nodes.some((node) => second.reads.has(node));
  if (!reads) return "readersOfTheSame";
  return folds(first.emitted!.space) || folds(second.emitted!.space) ? "rows" : "elements";
}
