/** Mixed batches: row i of a batch goes through the adapter that is named for it. */
import { concat, type Device, type Tensor } from "@tiedlora/core";

/** Names the model without any adapter, in a mixed batch. */
export const BASE = "__base__";

/** The rows of a batch, gathered by adapter, so that each row is computed once. */
export class RowGroups {
  /** One for each row. */
  readonly names: readonly string[];
  /** Each name once. */
  readonly adapters: readonly string[];
  readonly #index: readonly Tensor[];
  readonly #inverse: Tensor;
  readonly #parts = new WeakMap<Tensor, Tensor[]>();

  constructor(names: readonly string[], device: Device) {
    this.names = names;
    this.adapters = [...new Set(names)];
    const rows = this.adapters.map((name) => names.flatMap((one, row) => (one === name ? [row] : [])));
    const inverse = new Int32Array(names.length);
    rows.flat().forEach((row, at) => (inverse[row] = at));
    this.#index = rows.map((group) => device.tensor(Int32Array.from(group)));
    this.#inverse = device.tensor(inverse);
  }

  /** The rows of each adapter, in the order of `adapters`: the same tensors for the same x. */
  split(x: Tensor): readonly Tensor[] {
    if (x.shape[0] !== this.names.length) {
      throw new RangeError(
        `a batch of ${x.shape[0]} rows, but adapters are named for ${this.names.length}: give one name a row`,
      );
    }
    const known = this.#parts.get(x);
    if (known !== undefined) return known;
    const parts = this.adapters.length === 1 ? [x] : this.#index.map((index) => x.take(index));
    this.#parts.set(x, parts);
    return parts;
  }

  /** Undoes `split`. */
  join(parts: readonly Tensor[]): Tensor {
    return parts.length === 1 ? parts[0]! : concat(parts, 0).take(this.#inverse);
  }
}
