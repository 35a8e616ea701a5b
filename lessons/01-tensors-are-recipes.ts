/**
 * Lesson 1. Tensors are recipes.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/01-tensors-are-recipes.ts
 *
 * Most libraries compute a + b when you write it. This one only writes down that a and b are to be added. Nothing is computed
 * until a value is read; by then the library has seen the whole computation, and can plan it as a whole: which results need
 * memory, which are made on the way, and which operations can run as one kernel. We build such tensors in forty lines, then
 * find the same ideas in the library.
 */
import { cpu } from "@tiedlora/backend-cpu";
import { topological } from "@tiedlora/core";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

// --- 1. A recipe says what to do, and with which inputs. It is a value: making one costs one object, whatever the sizes.

type Kind = "given" | "add" | "mul" | "exp";

class Recipe {
  readonly kind: Kind;
  readonly inputs: readonly Recipe[];
  readonly given: readonly number[];

  constructor(kind: Kind, inputs: readonly Recipe[], given: readonly number[] = []) {
    this.kind = kind;
    this.inputs = inputs;
    this.given = given;
  }

  add(other: Recipe): Recipe {
    return new Recipe("add", [this, other]);
  }
  mul(other: Recipe): Recipe {
    return new Recipe("mul", [this, other]);
  }
  exp(): Recipe {
    return new Recipe("exp", [this]);
  }
}

const given = (...values: number[]): Recipe => new Recipe("given", [], values);

// --- 2. Cooking. One table says what each kind of recipe means; a walk that visits inputs before their users does the rest.

const MEANING: { readonly [K in Kind]: (a: number, b: number) => number } = {
  given: (a) => a,
  add: (a, b) => a + b,
  mul: (a, b) => a * b,
  exp: (a) => Math.exp(a),
};
let cooked = 0;

function cook(recipe: Recipe, done = new Map<Recipe, readonly number[]>()): readonly number[] {
  const known = done.get(recipe);
  if (known) return known; // a recipe that is used twice is computed once
  const [a, b] = recipe.inputs.map((input) => cook(input, done));
  const length = recipe.given.length || Math.max(a?.length ?? 0, b?.length ?? 0);
  const at = (list: readonly number[] | undefined, i: number): number => list?.[i] ?? 0;
  const values = Array.from({ length }, (_, i) =>
    recipe.kind === "given" ? recipe.given[i]! : MEANING[recipe.kind](at(a, i), at(b, i)),
  );
  if (recipe.kind !== "given") cooked++;
  done.set(recipe, values);
  return values;
}

console.log("A recipe of our own");
const x = given(0, 1, 2);
const square = x.mul(x);
const sum = square.add(square).exp(); // square is used twice
expect(cooked === 0, "three operations were written down and none computed");
const values = cook(sum);
expect(values.every((y, i) => Math.abs(y - Math.exp(2 * i * i)) < 1e-9), "exp(x² + x²) comes out right"); // prettier-ignore
expect(cooked === 3, "three operations were computed: what is used twice, once");

// --- 3. The library does just this. A tensor's `node` is its recipe: an operation, attributes, inputs, and a shape.

console.log("The library's tensors");
const device = await cpu();
const a = device.tensor([
  [1, 2, 3],
  [4, 5, 6],
]);
const b = a
  .mul(5)
  .add(device.tensor([10, 20, 30]))
  .sqrt(); // a row of 3 is added to each row of [2, 3]
console.log("  what sqrt(5a + row) is made of:", topological([b.node]).map(({ op }) => op).join(" → ")); // prettier-ignore
expect(b.shape.join() === "2,3", "shapes are known at once");
expect(device.memory().cachedPrograms === 0, "and nothing has run");

// Because mistakes in shapes are found when the recipe is written, the error points to the line with the mistake.
let message = "";
try {
  a.add(device.tensor([1, 2]));
} catch (error) {
  message = (error as Error).message;
}
console.log(`  a mistake: ${message}`);
expect(message !== "", "shapes that do not fit are refused at the call");

// --- 4. Asking for a value plans the whole recipe, compiles it as one program, and runs it.

const first = (await b.toArray()) as number[][];
expect(Math.abs(first[1]![2]! - Math.sqrt(60)) < 1e-5, "reading b computed it");
expect(device.memory().cachedPrograms === 1, "one program was compiled for all three operations");

// A program is found again by the structure of its recipe, so the second step of a training needs no compilation. Numbers
// like the 5 are passed to the program when it runs, so a learning rate may change at every step.
const c = device.tensor([[6, 5, 4], [3, 2, 1]]).mul(7).add(device.tensor([1, 1, 1])).sqrt(); // prettier-ignore
await c.data();
expect(device.memory().cachedPrograms === 1, "the same recipe with other numbers ran the same program");

device.close();
