/**
 * A kernel's iteration space while the kernel grows: its axes, and which nodes are needed at which accesses ("sites").
 * Movement nodes never become sites of their own unless they must be in memory; reaching through them changes the access.
 */
import { isOp, type Node, type Shape } from "../node.ts";
import {
  type Access,
  canSplit,
  cloneAccess,
  identityAccess,
  isMovement,
  pushThrough,
  regroup,
  sameAccess,
  type Split,
  splitAccess,
} from "../views.ts";

/** A node needed at an access. */
export interface Site {
  readonly node: Node;
  readonly access: Access;
  /** What it is computed from in this kernel; null while it is not, or when it is loaded from memory. */
  inputs: Edge[] | null;
}

/** A use of a site. `masked`: outside of the site's valid range the value used is 0. */
export interface Edge {
  readonly site: Site;
  readonly masked: boolean;
}

/** What a space needs to know of the whole, and tells it. */
export interface Surroundings {
  /** Whether the node is kept in memory whatever else is decided. */
  inMemory(node: Node): boolean;
  /** From now on the node is kept in memory, row-major. */
  keepInMemory(node: Node): void;
  /** `gate` is to be computed before the kernel that is being built. */
  waitFor(gate: Node): void;
}

const ROW_MAJOR: ReadonlySet<string> = new Set(["buffer", "data", "matmul", "gather", "scatterAdd"]);

/** The node whose memory a reshape (or `after`) of it shares. */
export function aliasBase(node: Node, inMemory: (node: Node) => boolean): Node {
  while ((isOp(node, "reshape") || isOp(node, "after")) && !inMemory(node)) node = node.inputs[0]!;
  return node;
}

export class Space {
  readonly extents: number[];
  /** Per axis, whether reductions fold it. */
  readonly inner: boolean[];
  /** Per axis, the axis of the original space it is a part of. */
  readonly origin: number[];
  readonly sites: Map<Node, Site[]> = new Map<Node, Site[]>();

  constructor(outer: Shape, inner: Shape = []) {
    this.extents = [...outer, ...inner];
    this.inner = this.extents.map((_, axis) => axis >= outer.length);
    this.origin = this.extents.map((_, axis) => axis);
  }

  /** The site of `node` at `access`, which must not be shared. */
  site(node: Node, access: Access): Site {
    let list = this.sites.get(node);
    if (!list) this.sites.set(node, (list = []));
    const known = list.find((site) => sameAccess(site.access, access));
    if (known) return known;
    const site: Site = { node, access, inputs: null };
    list.push(site);
    return site;
  }

  /** The site from which a kernel of `node` alone grows: the first axes of the space are the node's. */
  anchor(node: Node): Site {
    const access = identityAccess(this.extents);
    return this.site(node, { index: access.index.slice(0, node.shape.length), valid: access.valid });
  }

  /** Adds reduced axes behind all others. */
  append(lengths: Shape): void {
    for (const length of lengths) {
      this.origin.push(this.extents.length);
      this.extents.push(length);
      this.inner.push(true);
    }
    for (const access of this.#accesses()) {
      for (const { coeffs } of access.index) coeffs.push(...lengths.map(() => 0));
      access.valid.push(...lengths.map(() => null));
    }
  }

  *#accesses(): Iterable<Access> {
    for (const list of this.sites.values()) for (const { access } of list) yield access;
  }

  /** Splits an axis in all sites, or does nothing and returns false where a valid range forbids it. */
  split(split: Split): boolean {
    for (const access of this.#accesses()) if (!canSplit(access, split)) return false;
    for (const access of this.#accesses()) splitAccess(access, split);
    const { axis, inner } = split;
    this.extents.splice(axis, 1, this.extents[axis]! / inner, inner);
    this.inner.splice(axis, 1, this.inner[axis]!, this.inner[axis]!);
    this.origin.splice(axis, 1, this.origin[axis]!, this.origin[axis]!);
    return true;
  }

  /** Follows movement nodes from `node` down to what they move. */
  reach(node: Node, from: Access, around: Surroundings, pads: "mask" | "keep" = "mask"): Edge {
    let access = cloneAccess(from);
    let masked = false;
    while (isMovement(node) && !around.inMemory(node)) {
      if (isOp(node, "after")) {
        around.waitFor(node.inputs[1]!);
        node = node.inputs[0]!;
        continue;
      }
      let next = pads === "keep" && isOp(node, "pad") ? null : pushThrough(node, access, this.extents);
      if (next && "axis" in next) {
        const base = aliasBase(node, (n) => around.inMemory(n));
        const loadable = around.inMemory(base) || ROW_MAJOR.has(base.op);
        if (!loadable && canSplit(access, next) && this.split(next)) {
          splitAccess(access, next);
          continue;
        }
        next = null;
      }
      if (next === null) {
        this.#stopAt(node, around);
        break;
      }
      masked ||= isOp(node, "pad") && next.valid.some((range, axis) => range !== access.valid[axis]);
      access = next;
      node = node.inputs[0]!;
    }
    return { site: this.site(node, cloneAccess(access)), masked };
  }

  /** A view that no access expresses: what it views is kept in memory, row-major, so that a reshape of it costs nothing. */
  #stopAt(node: Node, around: Surroundings): void {
    if (!isOp(node, "reshape")) return around.keepInMemory(node);
    let base: Node = node.inputs[0]!;
    while ((isOp(base, "reshape") || isOp(base, "after")) && !around.inMemory(base)) {
      if (isOp(base, "after")) around.waitFor(base.inputs[1]!);
      base = base.inputs[0]!;
    }
    around.keepInMemory(base);
  }

  /** The access to the input of a reduction, whose result is needed at `site`: its axes run over the space's inner axes. */
  reductionInput(site: Site, node: Node, axes: readonly number[]): Access | null {
    const input = node.inputs[0]!.shape;
    for (;;) {
      const { index, valid } = site.access;
      const rank = this.extents.length;
      const inner = this.extents.flatMap((_, axis) => (this.inner[axis] ? [axis] : []));
      const units = inner.map((axis) => ({
        offset: 0,
        coeffs: Array.from({ length: rank }, (_, i) => Number(i === axis)),
      }));
      const digits = regroup(
        { index: units, valid },
        inner.map((axis) => this.extents[axis]!),
        axes.map((axis) => input[axis]!),
        this.extents,
      );
      if (digits === null) return null;
      if ("axis" in digits) {
        if (!this.split(digits)) return null;
        continue;
      }
      const all = index.map((affine, axis) =>
        axes.includes(axis) ? digits.index[axes.indexOf(axis)]! : affine,
      );
      return cloneAccess({ index: all, valid });
    }
  }
}
