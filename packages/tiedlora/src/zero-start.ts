/** Checks of a declaration's factors: which may be trained or drawn from a seed, and how a sum of products starts at zero. */
import { FROM_WEIGHT, type Init } from "./init.ts";

/** The parts of a factor, and of a method, that are checked. */
interface Declared {
  readonly init: Init;
  readonly trained: boolean;
  readonly bySeed: boolean;
}
interface Method {
  readonly name: string;
  readonly factors: Readonly<Record<string, Declared>>;
  readonly products: readonly (readonly string[])[];
}

/** Throws for a factor that cannot be what it is declared to be, and for a product of unknown factors. */
export function checkFactors(method: Method): void {
  for (const [name, { init, trained, bySeed }] of Object.entries(method.factors)) {
    const fail = (message: string): never => {
      throw new Error(`${method.name}: ${name} ${message}`);
    };
    if (init.dtype === "i32" && trained)
      fail("holds integers, which have no gradient; declare it with trained: false");
    if (bySeed && trained)
      fail(
        "is trained, so a seed does not say its values; declare it with trained: false, or without bySeed",
      );
    if (bySeed && init.label === FROM_WEIGHT)
      fail("starts from the weight, so a seed does not say its values; declare it without bySeed");
  }
  const unknown = method.products.flat().find((name) => !Object.hasOwn(method.factors, name));
  if (unknown !== undefined)
    throw new Error(
      `${method.name}: product names ${unknown}, which is no factor; expected some of ${Object.keys(method.factors).join(", ")}`,
    );
}

/**
 * Checks the zero-start rule: of each product, exactly one factor starts at zero, and it is trained. With none, the adapter changes
 * the model before the first step. With two, neither ever gets a gradient; with a frozen one, no factor does.
 */
export function checkZeroStart(method: Method): void {
  for (const product of method.products) checkProduct(method, product);
}

function checkProduct(method: Method, product: readonly string[]): void {
  const at = (name: string): Declared => method.factors[name]!;
  const zero = product.filter((name) => at(name).init.zero);
  const trained = product.filter((name) => at(name).trained);
  const list = (names: readonly string[]): string => names.join(", ");
  if (trained.length === 0) {
    throw new Error(`${method.name}: nothing is trained; train at least one of ${list(product)}`);
  }
  if (zero.length === 0) {
    throw new Error(
      `${method.name}: no factor starts at zero, so the model would change before the first step; start one of the ` +
        `trained factors (${list(trained)}) at zero, for example init: { ${trained[0]}: init.zeros() }`,
    );
  }
  if (zero.length > 1) {
    throw new Error(
      `${method.name}: ${list(zero)} all start at zero, so none of them would ever get a gradient; let exactly one ` +
        `start at zero, for example init: { ${zero[zero.length - 1]}: init.normal() }`,
    );
  }
  if (!at(zero[0]!).trained) {
    throw new Error(
      `${method.name}: ${zero[0]} starts at zero and is frozen, so the update would stay zero forever; train ` +
        `${zero[0]}, or start it at other values and a trained factor (${list(trained)}) at zero`,
    );
  }
}
