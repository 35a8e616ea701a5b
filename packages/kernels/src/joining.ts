/**
 * An order of kernels, each after those that it needs, that stays one while kernels are joined two at a time. It bounds every search:
 * what comes before a kernel in the order cannot wait for it, so in a long chain a question takes as long as what is asked about is apart.
 * @module
 */

/** Kernels in an order, each after those that it needs. */
export class JoiningOrder<T> {
  /** How many kernels all searches have passed. */
  readonly counts: { passed: number } = { passed: 0 };
  readonly #numbers = new Map<T, number>();
  // by number
  readonly #kernels: T[] = [];
  /** What a kernel has been joined into: a later number, or its own. */
  readonly #into: number[] = [];
  readonly #needs: number[][] = [];
  readonly #places: number[] = [];
  /** The last search that came by. */
  readonly #seen: number[] = [];
  /** The numbers in order; -1 at a place that joining has left empty. */
  readonly #order: number[] = [];
  #searches = 0;

  /** Appends a kernel that needs `needs`, which have been added before. */
  add(kernel: T, needs: Iterable<T>): void {
    const number = this.#number(kernel, needs);
    this.#places[number] = this.#order.push(number) - 1;
  }

  /** Puts `joint` in place of two kernels that have no third between them. It needs no more than both of them do. */
  join(first: T, second: T, joint: T, needs: Iterable<T>): void {
    const [lower, upper] = this.#sorted(first, second);
    const [from, to] = [this.#places[lower]!, this.#places[upper]!];
    const before = this.#before(upper, lower);
    const between = this.#order.slice(from + 1, to).filter((number) => number >= 0);
    const number = this.#number(joint, needs);
    this.#into[lower] = this.#into[upper] = number;
    const isBefore = (other: number): boolean => before.has(other);
    const moved = [...between.filter(isBefore), number, ...between.filter((other) => !isBefore(other))];
    this.#order.fill(-1, from, to + 1);
    moved.forEach((other, i) => {
      this.#order[from + i] = other;
      this.#places[other] = from + i;
    });
  }

  /** Whether one of two kernels waits for a third that waits for the other: the joint kernel would wait for itself. */
  hasBetween(first: T, second: T): boolean {
    const [lower, upper] = this.#sorted(first, second);
    const others = this.#needsOf(upper).filter((need) => need !== lower);
    return this.#isReached(lower, others);
  }

  /** Those of `others` that have no third between `kernel` and them: what `hasBetween` says of each, found for all at once. */
  apart(kernel: T, others: readonly T[]): T[] {
    const own = this.#numbers.get(kernel)!;
    const places = others.map((other) => this.#places[this.#numbers.get(other)!]!);
    const [place, least, most] = [this.#places[own]!, Math.min(...places), Math.max(...places)];
    const below = new Set<number>(); // what a third is or waits for that `kernel` waits for
    const direct = new Set(this.#needsOf(own));
    for (let at = place - 1; at >= least; at--) {
      const here = this.#order[at]!;
      if (below.has(here) || direct.has(here)) for (const need of this.#needsOf(here)) below.add(need);
    }
    const above = new Set<number>([own]); // `kernel`, and what waits for it
    const later = new Set<number>(); // what waits for a third of these
    for (let at = place + 1; at <= most; at++) {
      const here = this.#order[at]!;
      const needs = here < 0 ? [] : this.#needsOf(here).filter((need) => above.has(need));
      if (needs.length > 0) above.add(here);
      if (needs.some((need) => need !== own)) later.add(here);
    }
    return others.filter((other) => {
      const number = this.#numbers.get(other)!;
      return !below.has(number) && !later.has(number);
    });
  }

  /** Whether `kernel` is or waits for each of `others`. */
  waitsForAll(kernel: T, others: readonly T[]): boolean {
    const number = this.#numbers.get(kernel)!;
    return others.every((other) => this.#isReached(this.#numbers.get(other)!, [number]));
  }

  /** What `kernel` is or waits for, but `other` neither is nor waits for. */
  without(kernel: T, other: T): T[] {
    const [start, stop] = [this.#numbers.get(kernel)!, this.#numbers.get(other)!];
    const [own, others] = [new Set([start]), new Set([stop])];
    const found: T[] = [];
    let open = start === stop ? 0 : 1; // how many of `own` are not known to be of `others`, and have not been passed
    for (let at = Math.max(this.#places[start]!, this.#places[stop]!); open > 0; at--) {
      const here = this.#order[at]!;
      const isOthers = others.has(here);
      if (!isOthers && !own.has(here)) continue;
      if (!isOthers) {
        found.push(this.#kernels[here]!);
        open--;
      }
      for (const need of this.#needsOf(here)) {
        const isOpen = own.has(need) && !others.has(need);
        (isOthers ? others : own).add(need);
        open += Number(own.has(need) && !others.has(need)) - Number(isOpen);
      }
    }
    return found;
  }

  #number(kernel: T, needs: Iterable<T>): number {
    const number = this.#kernels.push(kernel) - 1;
    this.#numbers.set(kernel, number);
    this.#into.push(number);
    this.#needs.push(Array.from(needs, (need) => this.#numbers.get(need)!));
    this.#places.push(-1);
    this.#seen.push(0);
    return number;
  }

  #sorted(first: T, second: T): readonly [lower: number, upper: number] {
    const [a, b] = [this.#numbers.get(first)!, this.#numbers.get(second)!];
    return this.#places[a]! < this.#places[b]! ? [a, b] : [b, a];
  }

  /** What a kernel needs, as it has been joined by now. */
  #needsOf(number: number): readonly number[] {
    this.counts.passed++;
    const needs = this.#needs[number]!;
    for (let i = 0; i < needs.length; i++) {
      let need = needs[i]!;
      while (this.#into[need] !== need) need = this.#into[need]!;
      needs[i] = need;
    }
    return needs;
  }

  /** Whether `target` is one of `starts` or something that they wait for. It looks first where the order is closest to the target. */
  #isReached(target: number, starts: readonly number[]): boolean {
    const [floor, search] = [this.#places[target]!, ++this.#searches];
    const stack: number[] = [];
    for (let next: readonly number[] | undefined = starts; next;) {
      const known = stack.length;
      for (const number of next) {
        if (number === target) return true;
        if (this.#places[number]! < floor || this.#seen[number] === search) continue;
        this.#seen[number] = search;
        stack.push(number);
      }
      this.#sortFrom(stack, known);
      next = stack.length === 0 ? undefined : this.#needsOf(stack.pop()!);
    }
    return false;
  }

  /** Sorts the end of a list of a few kernels: the last in the order first. */
  #sortFrom(list: number[], start: number): void {
    for (let i = start + 1; i < list.length; i++) {
      const number = list[i]!;
      let at = i;
      for (; at > start && this.#places[list[at - 1]!]! < this.#places[number]!; at--)
        list[at] = list[at - 1]!;
      list[at] = number;
    }
  }

  /** What `upper` waits for after the place of `lower`. */
  #before(upper: number, lower: number): Set<number> {
    const floor = this.#places[lower]!;
    const found = new Set([upper]);
    for (const number of found) {
      for (const need of this.#needsOf(number)) if (this.#places[need]! > floor) found.add(need); // the loop also visits what is added
    }
    return found;
  }
}
