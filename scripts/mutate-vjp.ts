/**
 * Plants faults in every derivative rule of core, one at a time, and shows whether the checks of the conformance suite
 * find them. Prints a table, and exits 1 if a fault survives.
 *
 *   tsx --conditions=@tiedlora/source scripts/mutate-vjp.ts [OP ...]
 */
import { type Device, type Node, type Op, reference } from "@tiedlora/core";
import { checkDerivative, type OpCase, type OpRecord, RECORDS, RULES } from "@tiedlora/test";
import fc from "fast-check";
// The table itself is not part of the API.
import { neg, scale } from "../packages/core/src/build.ts";
import { VJP, type Vjp } from "../packages/core/src/grad.ts";

type Rule = Vjp<Op>;
type Parts = readonly (Node | null)[];

/** A fault: computes what a rule would return if it were wrong in this way. */
interface Fault {
  readonly name: string;
  readonly apply: (rule: Rule, ...call: Parameters<Rule>) => Parts;
}

const change = (parts: Parts, at: number, f: (part: Node) => Node | null): Parts =>
  parts.map((part, i) => (i === at && part ? f(part) : part));

/** Faults in the gradient of input `at`. */
const partFaults = (at: number): Fault[] => [
  { name: `d/dx${at} negated`, apply: (rule, ...call) => change(rule(...call), at, neg) },
  { name: `d/dx${at} × 1.01`, apply: (rule, ...call) => change(rule(...call), at, (g) => scale(g, 1.01)) },
  { name: `d/dx${at} dropped`, apply: (rule, ...call) => change(rule(...call), at, () => null) },
];

/** Faults in the arguments of the rule, or in the order of its results. */
const OPERAND_FAULTS: readonly Fault[] = [
  {
    name: "gradients swapped",
    apply: (rule, ...call) => {
      const [a, b, ...rest] = rule(...call);
      return a && b ? [b, a, ...rest] : [a ?? null, b ?? null, ...rest];
    },
  },
  {
    name: "operands swapped",
    apply: (rule, g, y, [a, b, ...rest], attrs, results) =>
      rule(g, y, a && b ? [b, a, ...rest] : [a], attrs, results),
  },
  {
    name: "result taken for operand",
    apply: (rule, g, y, [a, ...rest], attrs, results) => {
      const usable = a.shape.join() === y.shape.join() && a.dtype === y.dtype;
      return rule(g, y, [usable ? y : a, ...rest], attrs, results);
    },
  },
  {
    name: "operand taken for result",
    apply: (rule, g, y, x, attrs, results) => {
      const usable = x[0].shape.join() === y.shape.join() && x[0].dtype === y.dtype;
      return rule(g, usable ? x[0] : y, x, attrs, results);
    },
  },
];

/** Whether two gradients are the same expression, so that the fault changes nothing. */
function same(a: Node | null, b: Node | null): boolean {
  if (a === b || a === null || b === null) return a === b;
  if (a.op !== b.op || a.inputs.length !== b.inputs.length || a.shape.join() !== b.shape.join()) return false;
  // other leaves were compared by identity above; constants and iota are compared by their attributes
  if (a.inputs.length === 0 && !("value" in a.attrs))
    return a.op === "iota" && JSON.stringify(a.attrs) === JSON.stringify(b.attrs);
  return (
    JSON.stringify(a.attrs) === JSON.stringify(b.attrs) && a.inputs.every((x, i) => same(x, b.inputs[i]!))
  );
}

const MOST_CASES = 200;
const table = VJP as { -readonly [K in Op]: Rule | "none" };

function casesOf(record: OpRecord): readonly (readonly [OpCase, number])[] {
  const cases = fc.tuple(record.cases({ limit: 12, zeros: false }), fc.nat());
  return fc.sample(cases, { numRuns: MOST_CASES, seed: 1 });
}

type Outcome = { readonly found: string } | "equivalent" | "survived";

/** Runs the checks of one rule's records with a fault in the rule, until one fails. */
async function hunt(device: Device, op: Op, fault: Fault): Promise<Outcome> {
  const coverage = RULES[op];
  const names = "none" in coverage ? [] : coverage;
  const rule = table[op] as Rule;
  let changed = false;
  table[op] = (...call) => {
    const wrong = fault.apply(rule, ...call);
    const right = rule(...call);
    changed ||= right.some((part, i) => !same(part, wrong[i] ?? null));
    return wrong;
  };
  let tried = 0;
  try {
    for (const order of [1, 2] as const) {
      for (const record of RECORDS.filter((r) => names.includes(r.name) && r.gradient === "yes")) {
        for (const [one, seed] of casesOf(record)) {
          tried++;
          try {
            await checkDerivative(device, record, one, seed, order);
          } catch {
            return { found: `${record.name}, ${order === 1 ? "first" : "second"} order, case ${tried}` };
          }
        }
        if (!changed && order === 2) return "equivalent";
      }
    }
    return changed ? "survived" : "equivalent";
  } finally {
    table[op] = rule;
  }
}

/** The numbers of the inputs to which the rule gives gradients, observed in a run of its records. */
async function countParts(device: Device, op: Op): Promise<number[]> {
  const rule = table[op] as Rule;
  const parts = new Set<number>();
  table[op] = (...call) => {
    const result = rule(...call);
    result.forEach((part, i) => part && parts.add(i));
    return result;
  };
  const coverage = RULES[op];
  const names = "none" in coverage ? [] : coverage;
  for (const record of RECORDS.filter((r) => names.includes(r.name) && r.gradient === "yes")) {
    for (const [one, seed] of casesOf(record).slice(0, 10))
      await checkDerivative(device, record, one, seed, 2);
  }
  table[op] = rule;
  return [...parts].sort((a, b) => a - b);
}

const wanted = process.argv.slice(2);
const ops = (Object.keys(VJP) as Op[]).filter(
  (op) => table[op] !== "none" && (wanted.length === 0 || wanted.includes(op)),
);
const device = reference();
const total = { killed: 0, equivalent: 0, survived: 0 };
for (const op of ops) {
  const faults = [...(await countParts(device, op)).flatMap(partFaults), ...OPERAND_FAULTS];
  for (const fault of faults) {
    const outcome = await hunt(device, op, fault);
    if (outcome === "equivalent") {
      total.equivalent++;
      continue;
    }
    const isKilled = typeof outcome === "object";
    total[isKilled ? "killed" : "survived"]++;
    const text = isKilled ? `killed by ${outcome.found}` : "SURVIVED";
    console.log(`${op.padEnd(14)} ${fault.name.padEnd(26)} ${text}`);
  }
}
device.close();
console.log(
  `${total.killed} killed, ${total.survived} survived (${total.equivalent} change nothing and are left out)`,
);
if (total.survived > 0 || total.killed === 0) process.exitCode = 1;
