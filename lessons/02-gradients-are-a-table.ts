/**
 * Lesson 2. Gradients are a table.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/02-gradients-are-a-table.ts
 *
 * To train a network is to know, for each of its numbers, how the loss changes when that number does. The chain rule answers
 * this one operation at a time, from the loss backward: if L depends on y, and y = f(x), then dL/dx = dL/dy · f'(x). So a
 * library needs one rule per operation, and a walk. The rules are a table, and since they are written with the same
 * operations, the gradient is one more recipe: it can be planned with the rest, and differentiated again.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { grad, type Tensor } from "@tiedlora/core";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

// --- 1. Recipes of single numbers, as in lesson 1.

type Op = "input" | "constant" | "add" | "mul" | "sin" | "cos";

class Node {
  readonly op: Op;
  readonly inputs: readonly Node[];
  readonly value: number; // cheap enough to compute right away: the recipe is what matters here

  constructor(op: Op, inputs: readonly Node[], value: number) {
    this.op = op;
    this.inputs = inputs;
    this.value = value;
  }
}

const input = (value: number): Node => new Node("input", [], value);
const constant = (value: number): Node => new Node("constant", [], value);
const add = (a: Node, b: Node): Node => new Node("add", [a, b], a.value + b.value);
const mul = (a: Node, b: Node): Node => new Node("mul", [a, b], a.value * b.value);
const sin = (a: Node): Node => new Node("sin", [a], Math.sin(a.value));
const cos = (a: Node): Node => new Node("cos", [a], Math.cos(a.value));

// --- 2. The table. A rule turns g = dL/dy into dL/dx for each input. The type makes a missing rule a compile error.

type Rule = (g: Node, x: readonly Node[]) => readonly Node[];

const RULES: { readonly [K in Op]: Rule } = {
  input: () => [],
  constant: () => [],
  add: (g) => [g, g], // y = a + b: y changes by as much as a or b does
  mul: (g, [a, b]) => [mul(g, b!), mul(g, a!)], // y = a·b: when a changes, y changes b times as much
  sin: (g, [a]) => [mul(g, cos(a!))],
  cos: (g, [a]) => [mul(constant(-1), mul(g, sin(a!)))],
};

// --- 3. The walk: users before inputs. Gradients that reach a node along several paths add up.

function gradient(loss: Node, of: Node): Node {
  const order: Node[] = []; // inputs before users
  const visit = (node: Node): void => {
    if (order.includes(node)) return;
    node.inputs.forEach(visit);
    order.push(node);
  };
  visit(loss);
  const found = new Map<Node, Node>([[loss, constant(1)]]);
  for (const node of order.reverse()) {
    const g = found.get(node);
    if (!g) continue;
    RULES[node.op](g, node.inputs).forEach((part, i) => {
      const to = node.inputs[i]!;
      const before = found.get(to);
      found.set(to, before ? add(before, part) : part);
    });
  }
  return found.get(of) ?? constant(0);
}

console.log("A table of our own");
const f = (x: Node): Node => mul(sin(mul(x, x)), x); // x · sin(x²)
const x = input(0.7);
const slope = gradient(f(x), x);
const curvature = gradient(slope, x); // the gradient is a recipe: apply the walk to it

// --- 4. Nobody has to believe a rule. The slope is also a difference of two values; in double precision both agree to six digits.

const H = 1e-4;
const valueAt = (t: number): number => f(input(t)).value;
const difference = (valueAt(0.7 + H) - valueAt(0.7 - H)) / (2 * H);
const second = (valueAt(0.7 + H) - 2 * valueAt(0.7) + valueAt(0.7 - H)) / H ** 2;
expect(Math.abs(slope.value - difference) < 1e-6, `d/dx of x·sin(x²) is ${slope.value.toFixed(6)}, as differences say`); // prettier-ignore
expect(Math.abs(curvature.value - second) < 1e-5, `its own derivative is ${curvature.value.toFixed(6)}`);

// --- 5. The library: the same, with tensors. packages/core/src/grad.ts is one table and one walk, in 300 lines.

console.log("The library's table");
const device = await cpu();
const t = device.tensor([0.7, 1.1, -2]);
const y = t.mul(t).sin().mul(t).sum(); // a gradient is taken of a single number, such as a loss
const [dy] = grad(y, [t]) as [Tensor];
const [ddy] = grad(dy.sum(), [t]) as [Tensor];
const [d, dd] = [await dy.data(), await ddy.data()];
expect(Math.abs(d[0]! - slope.value) < 1e-5, "it finds the same slope");
expect(Math.abs(dd[0]! - curvature.value) < 1e-4, "and the same curvature");

// The walk visits only nodes that depend on a requested tensor. A frozen weight costs neither time nor memory.
const frozen = device.tensor([3, 3, 3]);
const loss = t.mul(frozen).sum();
const [onlyT] = grad(loss, [t]) as [Tensor];
expect((await onlyT.data()).every((g) => g === 3), "the gradient with respect to t alone is the frozen factor"); // prettier-ignore

// A tensor that is used in three places gets the sum of three gradients. Weight tying is just this (lesson 8).
const tied = t.mul(2).add(t.mul(3)).add(t.mul(5)).sum();
const [sum] = grad(tied, [t]) as [Tensor];
expect(
  (await sum.data()).every((g) => g === 10),
  "what is used three times gets 2 + 3 + 5",
);

device.close();
