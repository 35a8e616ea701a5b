/** Cuts the graph of a long unrolled loop into graphs of a few iterations, most of which are alike. They read each other's results from memory. */
import { cutsOf, type Operations } from "@tiedlora/kernels/periods";
import { getOrCreate } from "@tiedlora/kernels/collections";
import { hashed } from "@tiedlora/kernels/hashes";
import { innerAxis, takesRows } from "@tiedlora/kernels/views";
import { bytesOf, isOp, Node, topological } from "../graph.ts";
import { permute } from "../build.ts";
import { inverse, product } from "../shape.ts";
import { isActivation } from "../ops/activations.ts";
import type { Storage } from "../storage.ts";
import { codeOf } from "../trace.ts";
import { descend, isMovement, isValue, underMovement } from "./kinds.ts";

export type Updates = readonly { readonly storage: Storage; readonly value: Node }[];

/** A graph of its own, made of some nodes of another. */
export interface Piece {
  readonly roots: readonly Node[];
  /** The nodes of the whole graph whose values the roots have. */
  readonly values: readonly Node[];
  readonly updates: Updates;
  /** The nodes of the whole graph that slices, paddings and placements were made of. */
  readonly origins: ReadonlyMap<Node, Node>;
  /** Slices of memory whose length the piece does not know, with the axes of their origins along which they slide: they start at 0, and their true starts are given at run time. */
  readonly sliding: ReadonlyMap<Node, number>;
}

export interface Pieces {
  readonly pieces: readonly Piece[];
  /** The nodes whose values are in other pieces, or host data, by the storages that stand for them. */
  readonly standIns: ReadonlyMap<Storage, Node>;
}

/** Graphs that are shorter than this are not looked at. */
const SHORT = 2048;
/** What is read from further away, in nodes, may be at another distance in each iteration. */
const NEAR = 128;
/** Memory that is sliced so often along an inner axis is copied, with that axis first. */
const OFTEN = 64;

const isLeaf = ({ inputs }: Node): boolean => inputs.length === 0;

/** The pieces of a graph in the order in which they run; null if it is no long loop. All updates are in the last. `slides`: see `Caps`. */
export function piecesOf(roots: readonly Node[], updates: Updates, slides: number): Pieces | null {
  const walked = topological([...roots, ...updates.map(({ value }) => value)]);
  if (walked.length < SHORT) return null;
  const order = inOrder(walked);
  const cuts = cutsOf(operationsOf(order));
  return cuts.length === 0 ? null : new Cutter(order, cuts, [roots, updates], slides).pieces();
}

/**
 * The nodes that compute something, in the order in which they were made, which for loops and their gradients is iteration by iteration. Sums of
 * gradients over iterations, which are made at the end, come as soon as they can, and so do derivatives of activations. Sets their positions.
 */
function inOrder(walked: readonly Node[]): Node[] {
  const places = new Float64Array(walked.length);
  walked.forEach((node, i) => {
    let ready = 0;
    for (const input of node.inputs) ready = Math.max(ready, places[input.position]!);
    const isLate =
      node.serial - ready > NEAR || node.inputs.some((x) => isOp(x, "add") && places[x.position]! < x.serial);
    places[i] = isLate && (isOp(node, "add") || isActivation(node)) ? ready : node.serial;
  });
  const order = walked.filter((node) => !isLeaf(node));
  order.sort((a, b) => places[a.position]! - places[b.position]! || a.serial - b.serial);
  for (const node of walked) node.position = -1;
  order.forEach((node, i) => (node.position = i));
  return order;
}

function operationsOf(order: readonly Node[]): Operations {
  const lastUses = Int32Array.from(order.keys());
  order.forEach(({ inputs }, at) => {
    for (const input of inputs) {
      const { position } = underMovement(input);
      if (position >= 0) lastUses[position] = at;
    }
  });
  const codes = Int32Array.from(order, ({ op, dtype, shape, attrs, inputs }, at) => {
    let code = hashed(codeOf(op), dtype.charCodeAt(0) * 256 + dtype.charCodeAt(1));
    for (const length of shape) code = hashed(code, length);
    if (op !== "slice" && op !== "pad") for (const name in attrs) for (const letter of String(attrs[name as never])) code = hashed(code, letter.charCodeAt(0)); // prettier-ignore
    for (const { op: from, position } of inputs)
      code = hashed(code, position < 0 ? codeOf(from) : at - position > NEAR ? -1 : at - position);
    return hashed(code, Number(lastUses[at]! - at > NEAR));
  });
  const bytes = Float64Array.from(order, (node) => (isMovement(node) ? 0 : bytesOf(node)));
  return { codes, lastUses, bytes, inputs: (at) => order[at]!.inputs.map((x) => underMovement(x).position) };
}

class Cutter {
  readonly #order: readonly Node[];
  readonly #roots: readonly Node[];
  readonly #updates: Updates;
  readonly #members: Node[][];
  /** By position: the piece that computes a node. */
  readonly #pieceOf: Int32Array;
  /** Per value in memory, how many elements its slices have that leave out other rows; 0 if it is also read otherwise. */
  readonly #rows = new Map<Node, number>();
  /** Per value that is sliced along one inner axis: the same with that axis first, in a piece of its own. */
  readonly #turned = new Map<Node, Node<"permute">>();
  readonly #standIns = new Map<Node, Storage>();
  /** By position: a node's clone in the piece that computes it, and 1 if other pieces read it. */
  readonly #clones: Node[] = [];
  readonly #isRead: Uint8Array;
  // of the present piece
  #copies = new Map<Node, Node>(); // of nodes that it does not compute
  #origins = new Map<Node, Node>();
  #sliding = new Map<Node, number>();
  #now = 0;

  constructor(
    order: readonly Node[],
    cuts: readonly number[],
    [roots, updates]: readonly [readonly Node[], Updates],
    slides: number,
  ) {
    this.#order = order;
    this.#roots = roots;
    this.#updates = updates;
    this.#members = Array.from({ length: cuts.length + 1 }, () => []);
    this.#pieceOf = new Int32Array(order.length);
    this.#isRead = new Uint8Array(order.length);
    let piece = 0;
    order.forEach((node, i) => {
      while (cuts[piece]! <= i) piece++;
      // a result of a node with several is no value without it
      this.#pieceOf[i] = isOp(node, "pick") ? this.#pieceOf[node.inputs[0].position]! : piece;
      this.#members[this.#pieceOf[i]]!.push(node);
    });
    this.#findRows(slides);
    this.#findTurned(slides);
  }

  pieces(): Pieces {
    const made = this.#members.map((members, piece) => {
      this.#begin(piece);
      for (const node of members) this.#clones[node.position] = this.#clone(node);
      const isLast = piece === this.#members.length - 1;
      const updates = isLast
        ? this.#updates.map(({ storage, value }) => ({ storage, value: this.#here(value) }))
        : [];
      const own = this.#roots.filter((root) =>
        isLeaf(root) ? isLast : this.#pieceOf[root.position] === piece,
      );
      return { members, updates, own, origins: this.#origins, sliding: this.#sliding };
    });
    // before the values of pieces are listed, since these read some of them
    const none = { updates: [], origins: new Map<Node, Node>(), sliding: new Map<Node, number>() };
    const turned = [...this.#turned].map(([base, node]) => {
      this.#begin(-1);
      return [
        this.#pieceOf[base.position] ?? -1,
        { roots: [this.#here(node)], values: [node], ...none },
      ] as const;
    });
    const pieces = made.map(({ members, own, ...rest }): Piece => {
      const values = [
        ...new Set([...own, ...members.filter(({ position }) => this.#isRead[position] === 1)]),
      ];
      const cloneOf = (node: Node): Node => (isLeaf(node) ? this.#here(node) : this.#clones[node.position]!);
      return { roots: values.map(cloneOf), values, ...rest };
    });
    const after = (at: number): Piece[] => turned.flatMap(([of, one]) => (of === at ? [one] : []));
    const all = [...after(-1), ...pieces.flatMap((piece, at) => [piece, ...after(at)])];
    const standIns = new Map(Array.from(this.#standIns, ([node, storage]) => [storage, node]));
    return { pieces: all, standIns };
  }

  #begin(piece: number): void {
    [this.#copies, this.#origins, this.#sliding, this.#now] = [new Map(), new Map(), new Map(), piece];
  }

  /** The node of the present piece that has the value of `node`. */
  #here(node: Node): Node {
    if (this.#pieceOf[node.position] === this.#now) return this.#clones[node.position]!;
    if (isValue(node) || isOp(node, "buffer")) return node;
    let copy = this.#copies.get(node);
    if (!copy)
      this.#copies.set(node, (copy = isMovement(node) ? this.#clone(node) : this.#standInNode(node)));
    return copy;
  }

  #standInNode(node: Node): Node {
    return new Node("buffer", { storage: this.#standIn(node), version: 0 }, [], node.shape, node.dtype);
  }

  #standIn(node: Node): Storage {
    if (isOp(node, "buffer")) return node.attrs.storage;
    if (node.position >= 0) this.#isRead[node.position] = 1;
    const none = null as unknown as Storage["buffer"]; // only its identity counts
    return getOrCreate(this.#standIns, node, () => ({
      buffer: none,
      version: 0,
      name: node.op,
      walk: 0,
      position: 0,
    }));
  }

  #clone(node: Node): Node {
    // what ran in an earlier piece has run before
    if (isOp(node, "after") && this.#pieceOf[node.inputs[1].position] !== this.#now)
      return this.#here(node.inputs[0]);
    if (isOp(node, "slice")) {
      const base = baseOf(node.inputs[0]);
      const turned = innerAxisOf(node) > 0 ? this.#turned.get(node.inputs[0]) : undefined;
      const memory = this.#rows.get(base)! > 0 ? base : turned;
      if (memory && this.#pieceOf[base.position] !== this.#now) return this.#slidingSlice(node, memory);
    }
    const inputs = node.inputs.map((input) => this.#here(input));
    const clone = new Node(node.op, node.attrs, inputs, node.shape, node.dtype);
    if (isOp(node, "slice") || isOp(node, "pad") || isOp(node, "place")) this.#origins.set(clone, node);
    return clone;
  }

  /** A slice of memory of whatever length: of one that is as long as the slice. */
  #slidingSlice(node: Node<"slice">, base: Node): Node {
    const { dtype } = node;
    const order = isOp(base, "permute") ? base.attrs.order : node.shape.map((_, axis) => axis);
    const shape = order.map((axis) => node.shape[axis]!);
    const version = isOp(base, "buffer") ? base.attrs.version : 0;
    const memory = new Node("buffer", { storage: this.#standIn(base), version }, [], shape, dtype);
    const slice = new Node("slice", { ranges: shape.map((n) => [0, n, 1] as const) }, [memory], shape, dtype);
    this.#sliding.set(slice, order[0]!);
    this.#origins.set(slice, node);
    return permute(slice, inverse(order));
  }

  #findTurned(slides: number): void {
    const byBase = new Map<Node, number[]>();
    for (const node of this.#order) {
      const axis = innerAxisOf(node);
      if (axis > 0) getOrCreate(byBase, node.inputs[0], () => []).push(axis);
    }
    for (const [base, axes] of byBase) {
      if (!hasWindows(base, slides) || axes.length < OFTEN || new Set(axes).size > 1) continue;
      const others = base.shape.flatMap((_, axis) => (axis === axes[0] ? [] : [axis]));
      const turned = permute(base, [axes[0]!, ...others]) as Node<"permute">;
      turned.position = -1; // it is in no other piece
      this.#turned.set(base, turned);
    }
  }

  #findRows(slides: number): void {
    const rows = this.#rows;
    for (const node of this.#order) {
      if (!isOfRows(node)) continue;
      const [base, size] = [baseOf(node.inputs[0]), product(node.shape)];
      rows.set(base, hasWindows(base, slides) && (rows.get(base) ?? size) === size ? size : 0);
    }
    if (rows.size === 0) return;
    for (const node of this.#order) {
      if (isOp(node, "reshape") || isOfRows(node)) continue; // users of a reshape count instead
      for (const input of node.inputs) if (rows.has(baseOf(input))) rows.set(baseOf(input), 0);
    }
    for (const root of [...this.#roots, ...this.#updates.map(({ value }) => value)])
      rows.delete(baseOf(root));
    const changing = new Set(this.#updates.map(({ storage }) => storage));
    for (const base of rows.keys())
      if (isOp(base, "buffer") && changing.has(base.attrs.storage)) rows.delete(base);
  }
}

const baseOf = (node: Node): Node => descend(node, (n) => isOp(n, "reshape"));

const isOfRows = (node: Node): boolean =>
  isOp(node, "slice") && takesRows(node.attrs.ranges, node.inputs[0].shape);

const innerAxisOf = (node: Node): number =>
  isOp(node, "slice") ? innerAxis(node.attrs.ranges, node.inputs[0].shape) : 0;

/** Whether a value is in memory of which programs may read windows. */
const hasWindows = (base: Node, slides: number): boolean =>
  !isMovement(base) && !isValue(base) && bytesOf(base) <= slides;
