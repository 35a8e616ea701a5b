/**
 * Plans of known structures: once a structure has been planned at several sizes, its plans are made of those wherever the planner would
 * take the same path, and not planned.
 * @module
 */
import { ENOUGH, type Family, familyOf, FEWEST, isSamePath, recorded, type Sample } from "./family.ts";

/** What is known of one structure. */
interface Known<T> {
  readonly structure: Int32Array;
  families: Family<T>[];
  samples: Sample<T>[];
}

/** How many structures are kept, and how many samples and families of each; the oldest are forgotten first. */
const MOST = 16;
const MOST_SAMPLES = 8;
const MOST_FAMILIES = 8;
/**
 * How many integers the structures of all that is kept may have, those of a family counted twice. A full training step of GPT-2 small has
 * 17,000, and takes 2.4 MB as a sample, 6 MB as a family: the limit is about 80 MB.
 */
const MOST_INTEGERS = 2 ** 19;

const weightOf = ({ structure, samples, families }: Known<unknown>): number =>
  structure.length * (samples.length + 2 * families.length);

/** Plans by the structure of what is planned. */
export class Families<T> {
  /** How many plans were planned, and how many were made of others. */
  readonly counts: { planned: number; made: number } = { planned: 0, made: 0 };
  readonly #known = new Map<number, Known<T>>();

  /**
   * The plan of a structure, given as integers and their hash, at `sizes`: made of others if that is possible and the result `holds`,
   * otherwise planned.
   */
  plan(
    { hash, structure, sizes }: { hash: number; structure: Int32Array; sizes: readonly number[] },
    plan: () => T,
    holds: (made: T) => boolean,
  ): T {
    const known = this.#of(hash, structure);
    for (const family of known.families) {
      const made = family(sizes);
      if (made === null || !holds(made)) continue;
      this.counts.made++;
      return made;
    }
    this.counts.planned++;
    const { value, path } = recorded(plan);
    known.samples.push({ sizes, value, path });
    this.#extend(known);
    return value;
  }

  #of(hash: number, structure: Int32Array): Known<T> {
    let known = this.#known.get(hash);
    const isKnown =
      known?.structure.length === structure.length &&
      structure.every((int, i) => known!.structure[i] === int);
    if (!known || !isKnown) known = { structure: structure.slice(), families: [], samples: [] };
    this.#known.delete(hash);
    this.#known.set(hash, known);
    let weight = [...this.#known.values()].reduce((sum, one) => sum + weightOf(one), 0);
    for (const [oldest, one] of this.#known) {
      if (one === known || (this.#known.size <= MOST && weight <= MOST_INTEGERS)) break;
      this.#known.delete(oldest);
      weight -= weightOf(one);
    }
    return known;
  }

  /** Makes a family of the newest sample and the latest others on a line with it, if there are enough. */
  #extend(known: Known<T>): void {
    const newest = known.samples.at(-1)!;
    const varying = ({ sizes }: Sample<T>): string =>
      sizes.flatMap((size, k) => (Object.is(size, newest.sizes[k]) ? [] : [k])).join();
    const byLine = new Map<string, Sample<T>[]>();
    for (const other of known.samples.slice(0, -1)) {
      if (!isSamePath(other.path, newest.path)) continue;
      const line = varying(other);
      byLine.set(line, [...(byLine.get(line) ?? []), other]);
    }
    for (const line of byLine.values()) {
      const samples = [newest, ...line.slice(1 - ENOUGH)];
      const family = samples.length >= FEWEST && familyOf(samples);
      if (!family) continue;
      known.families = [...known.families, family].slice(-MOST_FAMILIES);
      known.samples = known.samples.filter((sample) => !samples.includes(sample));
      return;
    }
    known.samples = known.samples.slice(-MOST_SAMPLES);
  }
}
