/** Plans of long unrolled loops: each distinct piece of the graph is planned once, whatever the number of iterations, and they run in turn. */
import { Numbers, type Run, Segmented } from "@tiedlora/kernels/segments";
import { piecesOf, type Updates } from "./compile/pieces.ts";
import { bytesOf, type Node } from "./graph.ts";
import { type Plan, release } from "./plan-cache.ts";
import type { Runtime } from "./runtime.ts";
import { trace, type Trace } from "./trace.ts";

type PlanFor = (runtime: Runtime, roots: readonly Node[], updates: Updates, traced: Trace, moved: ReadonlySet<number>) => Plan; // prettier-ignore

/** A plan that runs those which `planFor` gives for the pieces of a graph; null if it is no long loop. `moving` is that of the plan. */
export function segmentedPlan(
  runtime: Runtime,
  [roots, updates]: readonly [readonly Node[], Updates],
  traced: Trace,
  moving: ReadonlySet<number>,
  planFor: PlanFor,
): Plan | null {
  const { slides } = runtime.backend.caps;
  const cut = runtime.fusion && slides ? piecesOf(roots, updates, slides) : null;
  if (!cut) return null;
  const { storages, data, free } = traced;
  const starts = traced.starts.map((start, i) => (free.has(i) ? 0 : start));
  const copies = { structure: traced.structure.slice(), sizes: traced.sizes.slice() }; // pieces are traced, too
  const numbers = new Numbers(traced, starts, moving);
  const parts: Plan[] = [];
  const outputs: Plan["outputs"][number][] = [];
  const values = new Map<object, object>(cut.standIns); // what stands for a storage or node: that itself, or what is equal to it
  const valueOf = (one: object): object => values.get(one) ?? one;
  const freed = releasing(parts);
  try {
    const runs = cut.pieces.map((piece): Run => {
      const own = trace(piece.roots, piece.updates);
      const given = numbers.startsOf(own.windows, piece.origins, piece.sliding);
      const free = new Set([...own.free, ...given.flatMap(({ isSliding }, i) => (isSliding ? [i] : []))]);
      const varied = new Set(given.flatMap((one, i) => (one.given !== null && !free.has(i) ? [i] : [])));
      const part = planFor(runtime, piece.roots, piece.updates, { ...own, free }, varied);
      part.users++;
      parts.push(part);
      const first = (index: number): Node => piece.values[part.results.indexOf(index)]!;
      piece.values.forEach((node, i) => values.set(node, first(part.results[i]!)));
      const reads = part.inputs.map(({ index }) => valueOf(valueOf(own.storages[index]!)));
      const writes = part.outputs.map(({ to, index }): object => {
        if (to === "input") return reads[index]!;
        if (to === "fresh") return first(index);
        return outputs[outputs.push({ to, index: storages.indexOf(own.storages[index]!) }) - 1]!;
      });
      const moved = Array.from(part.moving, (i) => ({ ...given[i]!, own: given[i]!.own - part.starts[i]! }));
      const scalars = [...own.scalars.map((node) => ({ own: 0, given: numbers.slotOf(node) })), ...moved];
      return { of: part, reads, writes, scalars };
    });
    const results = roots.map(valueOf) as Node[];
    const distinct = [...new Set(results)];
    const returned = distinct.filter((node) => bytesOf(node) > 0);
    const fresh = distinct.map((node) => ({ bytes: bytesOf(node), name: `the result of ${node.op}` }));
    const all = [...returned, ...outputs];
    const executable = new Segmented(runs, [...storages, ...data], all, runtime.handedOn, freed);
    const pending = parts.flatMap(({ ready }) => ready ?? []);
    const plan: Plan = withProgram(executable, {
      ...copies,
      rules: parts.flatMap(({ rules }) => rules),
      inputs: [...storages.map(from("storage")), ...data.map(from("data"))],
      outputs: [
        ...returned.map((node) => ({ to: "fresh" as const, index: distinct.indexOf(node) })),
        ...outputs,
      ],
      fresh,
      results: results.map((node) => distinct.indexOf(node)),
      usesData: data.map(() => true),
      starts,
      moving,
      executable,
      ready: pending.length > 0 ? Promise.all(pending).then(() => void (plan.ready = null)) : null,
      tempBytes: executable.tempBytes,
      users: 1,
    });
    return plan;
  } catch (cause) {
    freed();
    throw cause;
  }
}

// apart from the above, so that a plan does not keep the graph that it was made of
const releasing = (parts: readonly Plan[]) => (): void => parts.forEach(release);

function withProgram(executable: Segmented, plan: Omit<Plan, "program">): Plan {
  return Object.defineProperty(plan as Plan, "program", { get: () => executable.program });
}

const from = (name: "storage" | "data") => (_: unknown, index: number) => ({ from: name, index });
