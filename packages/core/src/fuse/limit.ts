/** The limit of buffers per kernel: what a kernel computes of too many is cut off and stored. */
import type { Node } from "../node.ts";
import { isMovement } from "../views.ts";
import type { Fused, Hints } from "../fuse.ts";
import { isValue, type LoopDraft } from "./draft.ts";
import type { Site } from "./space.ts";
import { operandsOfStep, type Steps } from "./steps.ts";

/**
 * Whether some kernel touches more than `limit` buffers. For each that does, `hints` then name a node to be computed apart:
 * one whose operands are about half of the kernel's.
 */
export function tooManyOperands(
  fused: Fused,
  steps: Steps,
  roots: ReadonlySet<Node>,
  limit: number,
  hints: Hints,
): boolean {
  let found = false;
  fused.drafts.forEach((draft, i) => {
    const { reads, writes } = operandsOfStep(steps.works[i]!.step);
    const count = new Set([...reads, ...writes].map((x) => x.buffer)).size;
    if (draft.type !== "loop" || count <= limit) return;
    const cut = nodeToCut(draft, steps, roots, limit);
    if (!cut)
      throw new Error(`plan: a kernel needs ${count} buffers at once, but the backend allows ${limit}`);
    hints.alone.add(cut);
    found = true;
  });
  return found;
}

function nodeToCut(draft: LoopDraft, steps: Steps, roots: ReadonlySet<Node>, limit: number): Node | null {
  const operands = new Map<Site, ReadonlySet<number>>();
  const visit = (site: Site): ReadonlySet<number> => {
    const known = operands.get(site);
    if (known) return known;
    const set = new Set<number>();
    operands.set(site, set);
    const loads = site.inputs === null || site.inputs[0]?.site === site;
    if (loads) set.add(steps.valueOf(site.node));
    else for (const { site: input } of site.inputs!) for (const value of visit(input)) set.add(value);
    return set;
  };
  for (const node of draft.outputs) for (const site of draft.space.sites.get(node)!) visit(site);
  const [first] = draft.outputs;
  let best: { node: Node; score: number } | null = null;
  for (const [{ node, inputs }, set] of operands) {
    const output = draft.outputs.includes(node);
    const possible = inputs !== null && !isValue(node) && !isMovement(node) && node !== first;
    if (!possible || (set.size < 2 && !output)) continue;
    // The part cut off must fit, and as much as possible should be gone from here.
    const score = set.size + 1 <= limit ? set.size : -set.size;
    if (!best || score > best.score) best = { node, score };
  }
  return (
    best?.node ??
    (draft.outputs.length > 1 ? (draft.outputs.find((n) => roots.has(n) && n !== first) ?? null) : null)
  );
}
