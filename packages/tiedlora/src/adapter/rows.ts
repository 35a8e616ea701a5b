/** Mixed batches: each row of a batch goes through the adapter that is named for it. */
import { concat, type Device, type Tensor } from "@tiedlora/core";

/** The name that stands for the model without adapters in a mixed batch. */
export const BASE = "__base__";

/** The rows of a batch, gathered by adapter, so that each row is computed once. */
export class RowGroups {
  /** The adapter's name for each row. */
  readonly names: readonly string[];
  /** Each name once, that with the most rows first: batches whose rows are in another order run the same program. */
  readonly adapters: readonly string[];
  readonly #index: readonly Tensor[];
  readonly #inverse: Tensor;
  readonly #parts = new WeakMap<Tensor, Tensor[]>();

  constructor(names: readonly string[], device: Device) {
    this.names = names;
    const groups = [...new Set(names)].map((name) =>
      names.flatMap((one, row) => (one === name ? [row] : [])),
    );
    const rows = groups.sort((a, b) => b.length - a.length || (names[a[0]!]! < names[b[0]!]! ? -1 : 1));
    this.adapters = rows.map((group) => names[group[0]!]!);
    const inverse = new Int32Array(names.length);
    rows.flat().forEach((row, at) => (inverse[row] = at));
    this.#index = rows.map((group) => device.tensor(Int32Array.from(group)));
    this.#inverse = device.tensor(inverse);
  }

  /**
   * Splits x [rows, ...] into the rows of each adapter, in the order of `adapters`; returns the same tensors for the same x. Throws
   * RangeError for another number of rows than of names.
   */
  split(x: Tensor): readonly Tensor[] {
    if (x.shape[0] !== this.names.length) {
      throw new RangeError(
        `the batch has ${x.shape[0]} rows, but adapters are named for ${this.names.length}: name one for each row`,
      );
    }
    const known = this.#parts.get(x);
    if (known !== undefined) return known;
    const parts = this.adapters.length === 1 ? [x] : this.#index.map((index) => x.take(index));
    this.#parts.set(x, parts);
    return parts;
  }

  /** Joins the rows of all adapters in their original order: the inverse of `split`. */
  join(parts: readonly Tensor[]): Tensor {
    return parts.length === 1 ? parts[0]! : concat(parts, 0).take(this.#inverse);
  }
}
