/** Small sums: as formulas, as events, and as word problems. All results are 0 to 25. */
import { pair } from "./facts.ts";
import { GOODS, type Person } from "./lexicon.ts";
import type { Rng } from "./rng.ts";

type Operator = "+" | "-" | "*";

interface Sum {
  operator: Operator;
  left: number;
  right: number;
  result: number;
}

/** A random sum; its left operand is `left`, if given. */
function randomSum(rng: Rng, operator: Operator, left?: number): Sum {
  switch (operator) {
    case "+": {
      const [x, y] = [left ?? rng.range(1, 12), rng.range(1, 8)];
      return { operator, left: x, right: y, result: x + y };
    }
    case "-": {
      const x = left ?? rng.range(2, 20);
      const y = rng.range(1, Math.min(x - 1, 8));
      return { operator, left: x, right: y, result: x - y };
    }
    case "*": {
      const [x, y] = [left ?? rng.range(2, 5), rng.range(2, 5)];
      return { operator, left: x, right: y, result: x * y };
    }
  }
}

const written = ({ left, operator, right, result }: Sum): string =>
  `${left} ${operator} ${right} = ${result}`;

/** "3 + 4 = 7" */
export function sumLine(rng: Rng): string {
  return written(randomSum(rng, rng.pick(["+", "-", "*"])));
}

/** Something counted, told with its outcome, and the sum behind it. */
export function tally(rng: Rng): { told: string; sum: string } {
  const [p, q] = pair(rng);
  const goods = rng.pick(GOODS);
  const sum = randomSum(rng, rng.pick(["+", "-", "*"]));
  const { left, right, result } = sum;
  const told: Record<Operator, readonly string[]> = {
    "+": [
      `${p.name} had ${left} ${goods} and got ${right} more. Then ${p.they} had ${result} ${goods}.`,
      `${p.name} had ${left} ${goods}. ${q.name} gave ${p.them} ${right} more. Now ${p.name} has ${result} ${goods}.`,
    ],
    "-": [
      `${p.name} had ${left} ${goods} and gave ${right} to ${q.name}. Then ${p.they} had ${result} ${goods}.`,
      `${p.name} had ${left} ${goods} but lost ${right}. Now ${p.name} has ${result} ${goods}.`,
    ],
    "*": [
      `${p.name} has ${left} bags with ${right} ${goods} in each. Together there are ${result} ${goods}.`,
    ],
  };
  return { told: rng.pick(told[sum.operator]), sum: written(sum) };
}

/** A word problem of one or two steps, and its working: "3 + 4 = 7, 7 - 2 = 5". The last number is the answer. */
export function problem(rng: Rng): { question: string; working: string } {
  const [p, q] = pair(rng);
  const goods = rng.pick(GOODS);
  const first = randomSum(rng, rng.pick(["+", "-", "*"]));
  const opening: Record<Operator, string> = {
    "+": `${p.name} had ${first.left} ${goods} and got ${first.right} more.`,
    "-": `${p.name} had ${first.left} ${goods} and gave ${first.right} to ${q.name}.`,
    "*": `${p.name} has ${first.left} bags with ${first.right} ${goods} in each.`,
  };
  const ask = `How many ${goods} does ${p.name} have now?`;
  if (first.result < 2 || first.result > 12 || rng.chance(0.5)) {
    return { question: `${opening[first.operator]} ${ask}`, working: written(first) };
  }
  const second = randomSum(rng, rng.pick(["+", "-"]), first.result);
  const then: Record<string, string> = {
    "+": `Then ${q.name} gave ${p.them} ${second.right} more.`,
    "-": `Then ${p.they} lost ${second.right}.`,
  };
  return {
    question: `${opening[first.operator]} ${then[second.operator]} ${ask}`,
    working: `${written(first)}, ${written(second)}`,
  };
}

/** The sums of one person's account: each goes on with the result of the one before. */
function account(rng: Rng, steps: number): Sum[] {
  const sums = [randomSum(rng, rng.pick(["+", "-", "*"]))];
  while (sums.length < steps) {
    const { result } = sums.at(-1)!;
    sums.push(randomSum(rng, result > 12 ? "-" : result < 2 ? "+" : rng.pick(["+", "-"]), result));
  }
  return sums;
}

/**
 * A word problem of exactly `steps` steps, with one less of another person between them, and its working: "3 + 4 = 7, 7 - 2 = 5".
 * Each result is one that the sums of `problem` have, 1 to 25.
 */
export function chain(rng: Rng, steps: number): { question: string; working: string } {
  const [p, q] = pair(rng);
  const goods = rng.pick(GOODS);
  const sums = account(rng, steps);
  const opened = ({ operator, left, right }: Sum, { name }: Person): string =>
    operator === "+"
      ? `${name} had ${left} ${goods} and got ${right} more.`
      : operator === "-"
        ? `${name} had ${left} ${goods} and lost ${right}.`
        : `${name} has ${left} bags with ${right} ${goods} in each.`;
  const then = ({ operator, right }: Sum, { name }: Person): string =>
    operator === "+" ? `Then ${name} got ${right} more.` : `Then ${name} lost ${right}.`;
  const told = (all: readonly Sum[], who: Person): string[] =>
    all.map((sum, i) => (i === 0 ? opened(sum, who) : then(sum, who)));
  const [own, others] = [told(sums, p), steps > 1 ? told(account(rng, steps - 1), q) : []];
  const mixed = rng
    .shuffle([...own.map(() => own), ...others.map(() => others)])
    .map((list) => list.shift()!);
  return {
    question: [...mixed, `How many ${goods} does ${p.name} have now?`].join(" "),
    working: sums.map(written).join(", "),
  };
}
