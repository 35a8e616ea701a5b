/**
 * Fusion: from nodes to steps. Nodes are visited users first; each is loaded from memory, computed inside the kernels that
 * need it, or given a kernel of its own. Every reason to put it somewhere is a named rule here. With fusion off, each
 * node has its own kernel, and only movement costs nothing.
 */
import { isOp, type Node } from "./node.ts";
import { product } from "./shape.ts";
import { coverage, dependsOn, identityAccess, isMovement } from "./views.ts";
import {
  type Draft,
  type Estimate,
  estimate,
  isCheap,
  isMemory,
  isReduction,
  isTrivial,
  isValue,
  LIBRARY,
  type LibraryDraft,
  type LoopDraft,
  underMovement,
  waitsFor,
} from "./fuse/draft.ts";
import { aliasBase, type Edge, type Site, Space, type Surroundings } from "./fuse/space.ts";

/** What an earlier attempt has taught. */
export interface Hints {
  /** Nodes to be computed by a kernel of their own. */
  readonly alone: Set<Node>;
  /** Nodes to be kept in memory, row-major. */
  readonly memory: Set<Node>;
  /** Nodes that must not be stored in their users' axis order. */
  readonly rowMajor: Set<Node>;
}

export interface FuseOptions {
  readonly fusion: boolean;
  /** Whether the backend's matmul takes an epilogue: then what follows a product is left to it. */
  readonly epilogues: boolean;
  /** Nodes that are always computed where they are used, also without fusion: the insides of a lowered operation. */
  readonly always: ReadonlySet<Node>;
}

/** The result: steps in no particular order, and where the values that are in memory come from. */
export interface Fused {
  readonly drafts: readonly Draft[];
  /** The step that writes a node's memory. */
  readonly producer: ReadonlyMap<Node, Draft>;
  /** Nodes whose memory is another node's: the node is a permutation of it, and is row-major there. */
  readonly layouts: ReadonlyMap<Node, Node>;
  readonly inMemory: (node: Node) => boolean;
}

/** More nodes than this in one kernel make it slow to compile. */
const LARGEST_KERNEL = 600;
/** Rows longer than this are folded in parallel, by a kernel of their own, unless there are many rows. */
const LONG_ROW = 65536;

/** Turns the nodes of `order` (inputs before users) into steps that compute `roots`. */
export function fuse(
  order: readonly Node[],
  roots: ReadonlySet<Node>,
  options: FuseOptions,
  hints: Hints,
): Fused {
  return new Fuser(order, roots, options, hints).run();
}

class Fuser implements Surroundings {
  readonly #order: readonly Node[];
  readonly #roots: ReadonlySet<Node>;
  readonly #options: FuseOptions;
  readonly #hints: Hints;
  readonly #estimates: Map<Node, Estimate>;
  readonly #memory: Set<Node>;
  readonly #drafts: Draft[] = [];
  readonly #producer = new Map<Node, Draft>();
  readonly #layouts = new Map<Node, Node>();
  /** Drafts with sites of a node that may compute it themselves. */
  readonly #demands = new Map<Node, Set<LoopDraft>>();
  /** Drafts that need a node in memory, row-major or as an operand. */
  readonly #readers = new Map<Node, Set<Draft>>();
  /** Drafts that are to start after a node is known. */
  readonly #gates = new Map<Node, Set<Draft>>();
  /** Permutations of a library call's result that want to be row-major. */
  readonly #wantedLayouts = new Map<Node, Node[]>();
  #current: Draft | null = null;

  constructor(order: readonly Node[], roots: ReadonlySet<Node>, options: FuseOptions, hints: Hints) {
    this.#order = order;
    this.#roots = roots;
    this.#options = options;
    this.#hints = hints;
    this.#memory = new Set([...roots, ...hints.memory, ...hints.alone]);
    this.#estimates = estimate(order, this.#memory);
  }

  run(): Fused {
    for (const node of this.#order.toReversed()) {
      if (isMemory(node)) this.#visitMemory(node);
      else if (isMovement(node)) this.#visitMovement(node);
      else this.#visitComputed(node);
    }
    const again =
      this.#drafts.filter((draft) => draft.type === "loop" && this.#hasIdleRows(draft)).length > 0;
    if (again) return fuse(this.#order, this.#roots, this.#options, this.#hints);
    return {
      drafts: this.#drafts,
      producer: this.#producer,
      layouts: this.#layouts,
      inMemory: (node) => this.inMemory(node),
    };
  }

  // --- what spaces ask and tell

  inMemory(node: Node): boolean {
    return this.#memory.has(node) || isMemory(node);
  }

  keepInMemory(node: Node): void {
    this.#memory.add(node);
    this.#hints.rowMajor.add(node);
  }

  waitFor(gate: Node): void {
    add(this.#gates, gate, this.#current!);
  }

  // --- visiting

  #visitMemory(node: Node): void {
    if (isOp(node, "buffer") || isOp(node, "data")) return;
    const parent = isOp(node, "pick") ? node.inputs[0]! : node;
    if (isOp(node, "pick")) {
      const draft = this.#libraryDraft(parent);
      draft.outputs.push(node);
      this.#stored(node, draft);
      return;
    }
    if (!LIBRARY.has(node.op)) return;
    const draft = this.#libraryDraft(node);
    if (!this.#producer.has(node) && (this.#isUsed(node) || draft.outputs.length === 0)) {
      draft.outputs.push(node);
      this.#stored(node, draft);
    }
    this.#current = draft;
    for (const input of node.inputs) draft.operands.push(this.#operand(input, draft));
  }

  #libraryDraft(node: Node): LibraryDraft {
    const known = this.#drafts.find((d): d is LibraryDraft => d.type === "library" && d.node === node);
    if (known) return known;
    const draft: LibraryDraft = {
      type: "library",
      node,
      operands: [],
      outputs: [],
      needs: new Set(),
      rules: new Set(),
    };
    this.#drafts.push(draft);
    return draft;
  }

  /** An operand as a view of memory, with one stride per axis. */
  #operand(input: Node, draft: LibraryDraft): LibraryDraft["operands"][number] {
    for (;;) {
      const space = new Space(input.shape);
      const edge = space.reach(input, identityAccess(input.shape), this, "keep");
      const base = aliasBase(edge.site.node, (n) => this.inMemory(n));
      if (mergeable(space, edge)) {
        this.#memory.add(base);
        add(this.#readers, base, draft);
        return { node: input, space, edge };
      }
      this.keepInMemory(input);
    }
  }

  #visitMovement(node: Node): void {
    if (!this.#memory.has(node)) {
      this.#passGates(node);
      return;
    }
    const base = this.#roots.has(node) ? null : resultUnderPermutation(node);
    if (base && this.#options.fusion && !this.#hints.rowMajor.has(base) && !this.#roots.has(base)) {
      const wanted = this.#wantedLayouts.get(base) ?? [];
      wanted.push(node);
      this.#wantedLayouts.set(base, wanted);
      return;
    }
    this.#visitComputed(node);
  }

  #visitComputed(node: Node): void {
    const demands = [...(this.#demands.get(node) ?? [])];
    const mustStore = this.#memory.has(node);
    if (!mustStore && demands.length === 0) return this.#passGates(node);
    const hosts = this.#hints.alone.has(node) ? [] : demands.filter((draft) => this.#canCompute(node, draft));
    const everywhere = hosts.length === demands.length;
    if (!mustStore && everywhere && (demands.length === 1 || this.#isRecomputed(node))) {
      for (const draft of demands) this.#computeIn(node, draft);
      return this.#passGates(node);
    }
    let host = hosts.find((draft) => this.#canStore(node, draft));
    if (host) {
      host.rules.add("severalOutputs");
      this.#computeIn(node, host);
    } else {
      host = this.#ownKernel(node);
    }
    host.outputs.push(node);
    this.#stored(node, host);
  }

  /** Steps that wait for a node that is in no memory wait for what it is made of. */
  #passGates(node: Node): void {
    for (const draft of this.#gates.get(node) ?? []) {
      for (const input of node.inputs) add(this.#gates, input, draft);
    }
  }

  /** `node` is in memory once `draft` has run: whoever reads it or waits for it comes later. */
  #stored(node: Node, draft: Draft): void {
    this.#producer.set(node, draft);
    this.#memory.add(node);
    for (const set of [this.#demands, this.#readers, this.#gates]) {
      for (const user of set.get(node) ?? []) if (user !== draft) user.needs.add(draft);
    }
    this.#settleLayouts(node, draft);
  }

  /** A library call writes its result in the axis order in which it is used, when there is one such order. */
  #settleLayouts(node: Node, draft: Draft): void {
    const wanted = this.#wantedLayouts.get(node) ?? [];
    const [first] = wanted;
    if (first && wanted.length === 1 && !this.#hints.rowMajor.has(node)) {
      draft.rules.add("storeInUsersOrder");
      this.#layouts.set(first, node);
      this.#stored(first, draft);
      return;
    }
    for (const copy of wanted) {
      this.#visitComputed(copy);
      const maker = this.#producer.get(copy)!;
      if (maker !== draft) maker.needs.add(draft);
    }
  }

  #isUsed(node: Node): boolean {
    return this.#memory.has(node) || this.#demands.has(node) || this.#readers.has(node);
  }

  #ownKernel(node: Node): LoopDraft {
    const reduced = isReduction(node) ? node.attrs.axes.map((axis) => node.inputs[0]!.shape[axis]!) : [];
    const space = new Space(node.shape, reduced);
    const draft: LoopDraft = {
      type: "loop",
      space,
      rows: reduced.length > 0,
      outputs: [],
      computes: new Set(),
      needs: new Set(),
      rules: new Set(),
    };
    this.#drafts.push(draft);
    space.anchor(node);
    this.#computeIn(node, draft);
    return draft;
  }

  /** Makes `draft` compute all its sites of `node`; what that takes becomes sites. */
  #computeIn(node: Node, draft: LoopDraft): void {
    this.#current = draft;
    const { space } = draft;
    draft.computes.add(node);
    for (const site of space.sites.get(node)!) {
      if (isReduction(node)) {
        this.#foldRows(site, node, draft);
        const access = space.reductionInput(site, node, node.attrs.axes);
        if (!access)
          throw new Error(
            `plan: a reduction of [${node.inputs[0]!.shape.join(", ")}] was put in a kernel it does not fit`,
          );
        site.inputs = [this.#reach(node.inputs[0]!, access, draft)];
      } else if (isMovement(node)) {
        site.inputs = [this.#throughOnce(site, node, draft)];
      } else {
        this.#commitRows(site, node, draft);
        site.inputs = [];
        for (const input of node.inputs) site.inputs.push(this.#reach(input, site.access, draft));
      }
    }
  }

  /** A movement node that is itself to be written: one step through it, then on as usual. */
  #throughOnce(site: Site, node: Node, draft: LoopDraft): Edge {
    this.#memory.delete(node);
    const edge = this.#reach(node, site.access, draft);
    this.#memory.add(node);
    return edge;
  }

  #reach(node: Node, access: Site["access"], draft: LoopDraft): Edge {
    const edge = draft.space.reach(node, access, this);
    const { node: found } = edge.site;
    const base = aliasBase(found, (n) => this.inMemory(n));
    if (base === found) add(this.#demands, found, draft);
    else add(this.#readers, base, draft);
    const maker = this.#producer.get(base);
    if (maker && maker !== draft) draft.needs.add(maker);
    return edge;
  }

  /**
   * A kernel whose rows were settled in expectation of a reduction that went elsewhere is elementwise after all. True if
   * something in it would now be computed too often: it gets a kernel of its own, and fusion starts again.
   */
  #hasIdleRows(draft: LoopDraft): boolean {
    if (!draft.rows || [...draft.computes].some(isReduction)) return false;
    draft.space.inner.fill(false);
    draft.rows = false;
    const costly = [...draft.computes].filter(
      (node) =>
        !isTrivial(this.#estimates.get(underMovement(node))!) &&
        draft.space.sites.get(node)!.some((site) => !elementwiseJoins(site, node, draft)),
    );
    for (const node of costly) this.#hints.alone.add(node);
    return costly.length > 0;
  }

  // --- rules: may `draft` compute `node` at all its sites?

  #canCompute(node: Node, draft: LoopDraft): boolean {
    if (isValue(node) || this.#options.always.has(node)) return true;
    if (isOp(node, "pad")) return false; // its zeros may not be a range of the kernel's axes
    if (!this.#options.fusion || draft.computes.size >= LARGEST_KERNEL) return false;
    if (this.#readers.get(node)?.has(draft)) return false; // part of the kernel reads it as memory of another shape
    const sites = draft.space.sites.get(node)!;
    if (isReduction(node)) return sites.length === 1 && this.#reductionJoins(sites[0]!, node, draft);
    return sites.every(
      (site) =>
        elementwiseJoins(site, node, draft) ||
        this.#rowValueJoins(site, node, draft) ||
        isTrivial(this.#estimates.get(underMovement(node))!),
    );
  }

  /** One value per row joins a kernel that folds rows, or that will when the reduction behind the value follows. */
  #rowValueJoins(site: Site, node: Node, draft: LoopDraft): boolean {
    const { space } = draft;
    const free = freeAxes(site, space);
    if (draft.rows) {
      return (
        space.inner.every((inner, axis) => !inner || free[axis] || space.extents[axis] === 1) &&
        onOuter(
          site,
          node,
          space.inner.map((x) => !x),
          space,
        )
      );
    }
    const { folded } = this.#estimates.get(underMovement(node))!;
    return folded > 1 && this.#canFold(site, node, draft, free, folded);
  }

  /** Whether the axes in `free` can become the inner axes of a kernel that reduces over `folded` elements. */
  #canFold(site: Site, node: Node, draft: LoopDraft, free: readonly boolean[], folded: number): boolean {
    const { extents } = draft.space;
    const length = product(extents.filter((_, axis) => free[axis]));
    if (length !== folded || extents.some((_, axis) => free[axis] && site.access.valid[axis])) return false;
    const rows = product(extents) / length;
    if (length > LONG_ROW && rows < 16) return false;
    return onOuter(
      site,
      node,
      free.map((x) => !x),
      draft.space,
    );
  }

  /** A reduction joins when its rows are the kernel's, or when the kernel works on its results alone. */
  #reductionJoins(site: Site, node: Node, draft: LoopDraft): boolean {
    const { space } = draft;
    const axes = isReduction(node) ? node.attrs.axes : [];
    const folded = product(axes.map((axis) => node.inputs[0]!.shape[axis]!));
    const free = freeAxes(site, space);
    if (site.access.valid.some((range) => range !== null)) return false; // the padding would be reduced in vain
    if (!draft.rows) {
      if (free.every((x) => !x))
        return (
          coverage(
            site.access,
            node.shape,
            space.extents,
            space.extents.map(() => true),
          ) !== "many"
        );
      if (!this.#canFold(site, node, draft, free, folded)) return false;
      free.forEach((x, axis) => (space.inner[axis] = x));
      const fits = space.reductionInput(site, node, axes) !== null;
      space.inner.fill(false);
      return fits;
    }
    const inner = space.inner.map((x, axis) => x && space.extents[axis]! > 1);
    if (inner.some((x, axis) => x && !free[axis])) return false;
    if (product(space.extents.filter((_, axis) => inner[axis])) !== folded) return false;
    return (
      onOuter(
        site,
        node,
        space.inner.map((x) => !x),
        space,
      ) && space.reductionInput(site, node, axes) !== null
    );
  }

  /** Settles which axes a kernel folds, when a reduction joins it. */
  #foldRows(site: Site, node: Node, draft: LoopDraft): void {
    const { space } = draft;
    if (draft.rows || !isReduction(node)) return;
    const free = freeAxes(site, space);
    draft.rows = true;
    if (free.some((x) => x)) {
      draft.rules.add("reductionJoinsRows");
      free.forEach((x, axis) => (space.inner[axis] = x));
    } else {
      draft.rules.add("reductionWithEpilogue");
      space.append(node.attrs.axes.map((axis) => node.inputs[0]!.shape[axis]!));
    }
  }

  /** Settles which axes a kernel folds, when a value per row joins it before the reduction that leads to it. */
  #commitRows(site: Site, node: Node, draft: LoopDraft): void {
    if (draft.rows || elementwiseJoins(site, node, draft)) return;
    if (!this.#rowValueJoins(site, node, draft)) return void draft.rules.add("cheapIsRecomputed");
    draft.rows = true;
    draft.rules.add("rowValueJoins");
    freeAxes(site, draft.space).forEach((x, axis) => (draft.space.inner[axis] = x));
  }

  /** Several need it: is computing it again cheaper than storing it? */
  #isRecomputed(node: Node): boolean {
    return (
      isValue(node) ||
      this.#options.always.has(node) ||
      isCheap(node, this.#estimates.get(underMovement(node))!)
    );
  }

  /** Whether `draft`, which can compute `node`, can also write it for others. */
  #canStore(node: Node, draft: LoopDraft): boolean {
    if (!this.#options.fusion) return false;
    const { space } = draft;
    const [site, ...others] = space.sites.get(node)!;
    if (others.length > 0) return false;
    const everything = space.extents.map(() => true);
    const outer = space.inner.map((x) => !x);
    const full = coverage(site!.access, node.shape, space.extents, everything) === "all";
    const perRow =
      coverage(site!.access, node.shape, space.extents, outer) === "all" &&
      this.#isPerRow(site!, node, draft);
    if (!full && !perRow) return false;
    if (full && draft.rows && !rowsAreContiguous(site!, space)) return false;
    if (this.#options.epilogues && draft.rows && full && followsProduct(node)) return false;
    for (const users of [this.#demands, this.#readers, this.#gates]) {
      for (const user of users.get(node) ?? []) if (user !== draft && waitsFor(draft, user)) return false;
    }
    return true;
  }

  #isPerRow(site: Site, node: Node, draft: LoopDraft): boolean {
    return draft.rows || isReduction(node) || this.#rowValueJoins(site, node, draft);
  }
}

// --- rules that need only the kernel

/** An elementwise node joins when the kernel's points reach each of its elements at most once. */
function elementwiseJoins(site: Site, node: Node, { space }: LoopDraft): boolean {
  const { extents } = space;
  const computed = site.access.valid.reduce(
    (n, range, axis) => n * (range ? extents[axis]! / Math.max(range[1] - range[0], 1) : 1),
    1,
  );
  return (
    computed <= 2 &&
    coverage(
      site.access,
      node.shape,
      extents,
      extents.map(() => true),
    ) !== "many"
  );
}

/** Axes (longer than 1) of the space that a site does not depend on. */
function freeAxes(site: Site, space: Space): boolean[] {
  const used = dependsOn(site.access, space.extents);
  return space.extents.map((n, axis) => n > 1 && !used[axis]);
}

function onOuter(site: Site, node: Node, outer: readonly boolean[], { extents }: Space): boolean {
  return coverage(site.access, node.shape, extents, outer) !== "many";
}

/** Whether neighbours in a row are neighbours in the memory of `site`'s node. */
function rowsAreContiguous({ access, node }: Site, { extents, inner }: Space): boolean {
  const last = node.shape.findLastIndex((n) => n > 1);
  if (last < 0) return true;
  return extents.every(
    (n, axis) => n === 1 || Math.abs(access.index[last]!.coeffs[axis]!) !== 1 || inner[axis]!,
  );
}

/** Whether a node is elementwise work on a matmul's product, element by element. */
function followsProduct(node: Node): boolean {
  return (
    !isReduction(node) &&
    node.inputs.some((input) => {
      const base = underMovement(input);
      return isOp(base, "matmul") && product(base.shape) === product(node.shape);
    })
  );
}

/** The library result that a node permutes (and does nothing else with), if it is one. */
function resultUnderPermutation(node: Node): Node | null {
  if (!isOp(node, "permute")) return null;
  const base = node.inputs[0]!;
  return isOp(base, "pick") || LIBRARY.has(base.op) ? base : null;
}

/** Whether the parts that a space's axes were split into are again one stride each, in row-major memory. */
function mergeable({ extents, origin }: Space, { site }: Edge): boolean {
  const strides = rowMajorStrides(site);
  return extents.every(
    (_, axis) =>
      axis === 0 ||
      origin[axis] !== origin[axis - 1] ||
      strides[axis - 1] === strides[axis]! * extents[axis]!,
  );
}

function rowMajorStrides({ access, node }: Site): number[] {
  const strides = new Array<number>(access.valid.length).fill(0);
  let step = 1;
  for (let axis = node.shape.length - 1; axis >= 0; step *= node.shape[axis]!, axis--) {
    access.index[axis]!.coeffs.forEach((c, i) => (strides[i]! += c * step));
  }
  return strides;
}

function add<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const set = map.get(key);
  if (set) set.add(value);
  else map.set(key, new Set([value]));
}
