/**
 * The steps that were lowered, to be found by those that differ from them in their buffers alone: equal layers of a model, and in programs of
 * another length the steps that no length is in, such as the optimizer's.
 */
import { mapBuffers, type Step } from "@tiedlora/kernels";
import { buffersIfAlike, buffersOf, sketchOf } from "@tiedlora/kernels/alike";
import { fitsBinding } from "./shown.ts";
import type { Kernel, Target } from "./target.ts";

/** The kernels of a program, or of a step, in order, and the sizes of the buffers that they use besides its own. */
export interface Lowered {
  readonly kernels: readonly Kernel[];
  readonly scratchBytes: readonly number[];
}

interface Entry {
  readonly step: Step;
  /** The buffers of `step` in order of appearance, by which the kernels name them, and their bytes. */
  readonly order: readonly number[];
  readonly bytes: readonly number[];
  readonly lowered: Lowered;
}

/** How many steps are remembered; those that no program has had for longest are forgotten. */
const MOST = 1024;

export class KnownSteps {
  /** How many steps were added so far. */
  added = 0;
  readonly #target: Target;
  readonly #bySketch = new Map<number, Entry[]>();
  /** Each text once. */
  readonly #texts = new Map<string, string>();
  #size = 0;

  constructor(target: Target) {
    this.#target = target;
  }

  /**
   * What `lower` gives for a step, or for one with other sizes of buffers that fit a binding; and the buffers of the step by their numbers
   * in it. `lower` is given the step with its buffers numbered, and their bytes.
   */
  of(
    step: Step,
    allBytes: readonly number[],
    lower: (step: Step, bytes: readonly number[]) => Lowered,
  ): { readonly lowered: Lowered; readonly buffers: readonly number[] } {
    const sketch = sketchOf(step);
    const entries = this.#bySketch.get(sketch) ?? [];
    this.#bySketch.delete(sketch); // move it to the end, because the first are dropped first
    this.#bySketch.set(sketch, entries);
    for (const { step: known, order, bytes, lowered } of entries) {
      const buffers = buffersIfAlike(known, order, step);
      if (buffers?.every((buffer, i) => this.#isSame(allBytes[buffer]!, bytes[i]!)))
        return { lowered, buffers };
    }
    const order = buffersOf(step);
    const bytes = order.map((buffer) => allBytes[buffer]!);
    const lowered = this.#withKnownTexts(lower(mapBuffers(step, (buffer) => order.indexOf(buffer)), bytes)); // prettier-ignore
    entries.push({ step, order, bytes, lowered });
    this.added++;
    this.#size++;
    this.#forget();
    return { lowered, buffers: order };
  }

  /** Whether kernels are the same for buffers of both sizes, but for the bytes that are bound. */
  #isSame(a: number, b: number): boolean {
    return a === b || (fitsBinding(a, this.#target) && fitsBinding(b, this.#target));
  }

  #withKnownTexts({ kernels, scratchBytes }: Lowered): Lowered {
    const text = (code: string): string => {
      const known = this.#texts.get(code);
      if (known === undefined) this.#texts.set(code, code);
      return known ?? code;
    };
    return { kernels: kernels.map((kernel) => ({ ...kernel, code: text(kernel.code) })), scratchBytes };
  }

  #forget(): void {
    if (this.#texts.size > MOST) this.#texts.clear();
    for (const [sketch, entries] of this.#bySketch) {
      if (this.#size <= MOST) break;
      this.#size -= entries.length;
      this.#bySketch.delete(sketch);
    }
  }
}
