/**
 * Comparison of steps, whatever they consist of. Comparing is cheaper than making keys: what differs is found early, and nothing is
 * allocated.
 * @module
 */
import type { Step } from "./kernel.ts";

/** Whether two plain values are equal, numbers bit for bit; properties that are undefined count as missing. */
export function alike(a: unknown, b: unknown): boolean {
  return compared(a, b, null, null);
}

/** Equal for steps that differ in their buffers alone, and different for most others. */
export function sketchOf(step: Step): string {
  if (step.type === "loop")
    return `${step.outer.join()} ${step.inner.join()} ${step.body.length} ${step.stores.length}`;
  const strides = [...step.inputs, ...step.outputs].map(({ view }) => view.strides.join());
  return `${step.name} ${Object.values(step.params).join()} ${strides.join(" ")}`;
}

/** The buffers of a step, in order of appearance. */
export function buffersOf(step: Step): number[] {
  const order: number[] = [];
  collect(step, order);
  return order;
}

function collect(value: unknown, order: number[]): void {
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) collect(value[i], order);
    return;
  }
  const record = value as Readonly<Record<string, unknown>>;
  for (const key in record) {
    if (key !== "buffer") collect(record[key], order);
    else if (!order.includes(record[key] as number)) order.push(record[key] as number);
  }
}

/** The buffers of `step` in order of appearance if it differs from `known`, whose buffers are `order`, in buffers alone; otherwise null. */
export function buffersIfAlike(known: Step, order: readonly number[], step: Step): number[] | null {
  const own: number[] = [];
  return compared(known, step, order, own) && own.length === order.length ? own : null;
}

function compared(a: unknown, b: unknown, order: readonly number[] | null, own: number[] | null): boolean {
  if (typeof a !== "object" || a === null) return Object.is(a, b);
  if (typeof b !== "object" || b === null) return false;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!compared(a[i], b[i], order, own)) return false;
    return true;
  }
  const [one, other] = [a, b] as Readonly<Record<string, unknown>>[];
  for (const key in one) {
    if (key === "buffer" && order !== null && own !== null) {
      const place = order.indexOf(one[key] as number);
      let ownPlace = own.indexOf(other![key] as number);
      if (ownPlace < 0) ownPlace = own.push(other![key] as number) - 1;
      if (place !== ownPlace) return false;
    } else if (!compared(one[key], other![key], order, own)) return false;
  }
  for (const key in other) if (other[key] !== undefined && one![key] === undefined) return false;
  return true;
}
