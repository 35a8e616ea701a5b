/** Turns a graph into a program, compiled or found by the key of the graph, and submits it with its buffers and scalars. */
import { type DeviceBuffer, type Executable, keptOr, type LastingKey, type Target } from "@tiedlora/kernels";
import { bytesOf, type Node, topological } from "./graph.ts";
import type { Plan } from "./plan-cache.ts";
import { type Storage, touch } from "./storage.ts";
import { type Assembly, assemble, type Draft, finish, knownOrPlanned, overwriting } from "./compile/assemble.ts"; // prettier-ignore
import { lower, movesOf } from "./compile/lower.ts";
import { rewrite } from "./compile/rewrite.ts";
import { segmentedPlan } from "./segmented.ts";
import { trace, type Trace } from "./trace.ts";
import type { Runtime } from "./runtime.ts";
import { show } from "./shape.ts";

/** After the program, `storage` holds `value` (of the same size and type), and its version has grown by one. */
export interface Update {
  readonly storage: Storage;
  readonly value: Node;
}

/** Computes `roots` and `updates` in one program, without waiting. Returns the storages of the roots; equal roots share one. */
export function submit(
  runtime: Runtime,
  roots: readonly Node[],
  updates: readonly Update[] = [],
  traced: Trace = trace(roots, updates),
): readonly Storage[] {
  const plan = planFor(runtime, roots, updates, traced);
  const { storages, data, scalars } = traced;
  const values = new Float64Array(scalars.length + plan.moving.size);
  scalars.forEach((node, slot) => (values[slot] = node.attrs.value));
  [...plan.moving].forEach((i, n) => (values[scalars.length + n] = traced.starts[i]! - plan.starts[i]!));
  const fresh = allocateAll(runtime, plan.fresh);
  const outputs = plan.results.map((index) => fresh[index]!);
  const hostData = data.map((node) => node.attrs.values);
  let uploads: (Storage | null)[] = [];
  const task = (): void => {
    const temporary = new Set<DeviceBuffer>();
    try {
      const inputs = plan.inputs.map(({ from, index }) => {
        if (from === "storage") return memoryOf(storages[index]!);
        const kept = uploads[index];
        if (kept) return memoryOf(kept);
        const buffer = uploaded(runtime, hostData[index]!);
        temporary.add(buffer);
        return buffer;
      });
      const replaced: { storage: Storage; buffer: DeviceBuffer }[] = [];
      const targets = plan.outputs.map((output): DeviceBuffer => {
        if (output.to === "input") return inputs[output.index]!;
        if (output.to === "fresh") return memoryOf(fresh[output.index]!);
        const storage = storages[output.index]!;
        const buffer = runtime.backend.alloc(storage.buffer.bytes);
        temporary.add(buffer);
        replaced.push({ storage, buffer });
        return buffer;
      });
      plan.executable?.run(inputs, targets, values);
      for (const { storage, buffer } of replaced) {
        temporary.delete(buffer);
        temporary.add(storage.buffer.memory);
        storage.buffer.memory = buffer;
        storage.buffer.failure = null;
      }
    } finally {
      for (const buffer of temporary) buffer.free();
    }
  };
  const makes = fresh.map(({ buffer }) => buffer);
  const versions = updates.map(({ storage }) => storage.version);
  for (const { storage } of updates) touch(storage);
  try {
    uploads = data.map((node, i) => (plan.usesData[i] ? uploadFor(runtime, node) : null));
    runtime.queue.run(task, plan.ready ? { ready: plan.ready, makes } : { makes });
  } catch (cause) {
    // the step has no effect: graphs built on the old values stay valid, and no memory waits for the garbage collector
    updates.forEach(({ storage }, i) => (storage.version = versions[i]!));
    for (const buffer of makes) buffer.free();
    throw cause;
  }
  return outputs;
}

/** Allocates all of `wanted`, or nothing if one allocation throws. */
function allocateAll(runtime: Runtime, wanted: Plan["fresh"]): Storage[] {
  const storages: Storage[] = [];
  try {
    for (const { bytes, name } of wanted) storages.push(runtime.allocate(bytes, name));
  } catch (cause) {
    for (const { buffer } of storages) buffer.free();
    throw cause;
  }
  return storages;
}

/** The plan that `submit` uses. If slices start elsewhere than in the known plan, or in `moved`, a new plan takes those starts at run time. */
export function planFor(
  runtime: Runtime,
  roots: readonly Node[],
  updates: readonly Update[] = [],
  traced: Trace = trace(roots, updates),
  moved: ReadonlySet<number> = new Set(),
): Plan {
  const known = runtime.plans.find(traced);
  const isOther = (start: number, i: number): boolean =>
    moved.has(i) || (!!known && start !== known.starts[i]);
  const varied = traced.starts.flatMap((x, i) => (traced.free.has(i) || isOther(x, i) ? [i] : []));
  if (known && varied.every((i) => known.moving.has(i))) return known;
  return compile(runtime, roots, updates, traced, new Set([...(known?.moving ?? []), ...varied]));
}

/** The backend's memory behind a storage. Throws if the task that should have filled it failed. */
function memoryOf({ buffer }: Storage): DeviceBuffer {
  if (buffer.failure) throw buffer.failure;
  return buffer.memory;
}

function uploaded(runtime: Runtime, values: ArrayBufferView): DeviceBuffer {
  const buffer = runtime.backend.alloc(Math.max(values.byteLength, 4));
  buffer.write(values);
  return buffer;
}

/** The lasting upload of host memory, made at its second use; null at the first. */
function uploadFor(runtime: Runtime, node: Node<"data">): Storage | null {
  const known = runtime.uploads.get(node);
  if (known) return known;
  const { values } = node.attrs;
  const storage = known === null ? runtime.allocate(values.byteLength, "an uploaded tensor") : null;
  storage?.buffer.write(values);
  runtime.uploads.set(node, storage);
  return storage;
}

/** Compiles and caches a plan. `moving` holds the indices of the starts that the program is given at run time. */
function compile(
  runtime: Runtime,
  roots: readonly Node[],
  updates: readonly Update[],
  traced: Trace,
  moving: ReadonlySet<number>,
): Plan {
  const segmented = segmentedPlan(runtime, [roots, updates], traced, moving, planFor);
  if (segmented) return kept(runtime, traced, segmented);
  checkTypes(runtime, roots, updates);
  const slots = new Map<Node, number>(traced.scalars.map((node, slot) => [node, slot]));
  const { backend, fusion } = runtime;
  const wanted = [...roots, ...updates.map((update) => update.value)];
  const drafted = (target: Target): Draft => {
    const places = { moves: movesOf(traced, moving), overwriting: overwriting(roots, updates) };
    const lowered = lower(wanted, { target, slots, ...places });
    const results = fusion ? rewrite(lowered.roots, target) : lowered.roots;
    return assemble({
      roots: results.slice(0, roots.length),
      updates: updates.map(({ storage }, i) => ({ storage, value: results[roots.length + i]! })),
      nodes: lowered.nodes,
      storages: traced.storages,
      data: traced.data,
      slots,
      scalars: slots.size + moving.size,
      backend: target,
      fusion,
    });
  };
  const starts = traced.starts.map((start, i) => (traced.free.has(i) ? 0 : start));
  const isFamiliar = moving.size === traced.free.size; // slices that have moved are planned
  const planned = (): Assembly =>
    finish(isFamiliar ? knownOrPlanned(runtime, { ...traced, starts }, drafted) : drafted(backend));
  const [structure, sizes] = [traced.structure.slice(), traced.sizes.slice()];
  const key = (): LastingKey => [structure, sizes, JSON.stringify([starts, [...moving], fusion])];
  const assembly = keptOr(backend.cache, "plan", key, planned);
  const run = { executable: null, ready: null, tempBytes: 0, users: 1 };
  const plan: Plan = { ...assembly, structure, sizes, starts, moving, ...run };
  const keep = (executable: Executable): void => {
    plan.executable = executable;
    plan.tempBytes = executable.tempBytes;
    plan.ready = null;
  };
  if (plan.program.steps.length > 0) {
    const compiled = backend.compile(plan.program);
    if (compiled instanceof Promise) plan.ready = compiled.then(keep);
    else keep(compiled);
  }
  return kept(runtime, traced, plan);
}

function kept({ plans }: Runtime, traced: Trace, plan: Plan): Plan {
  plan.ready?.catch(() => plans.drop(traced, plan));
  plans.keep(traced, plan);
  return plan;
}

function checkTypes({ backend, name }: Runtime, roots: readonly Node[], updates: readonly Update[]): void {
  const { dtypes } = backend.caps;
  for (const { op, dtype, shape } of topological([...roots, ...updates.map((u) => u.value)])) {
    if (dtypes.has(dtype) || (op === "cast" && dtype !== "f64")) continue;
    throw new TypeError(
      `${name} holds no ${dtype} (a ${op} of shape ${show(shape)}); it has ${[...dtypes].join(", ")}: use .cast(…) or another dtype`,
    );
  }
  for (const { storage, value } of updates) {
    if (bytesOf(value) <= storage.buffer.bytes) continue;
    throw new RangeError(
      `update of ${storage.name}: the value ${show(value.shape)} is larger than its memory`,
    );
  }
}
