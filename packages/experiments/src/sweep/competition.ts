/**
 * Successive halving of trials as their losses arrive (ASHA: Li et al. 2020, "A System for Massively Parallel Hyperparameter
 * Tuning"). Trials run to the first rung; the best 1/factor of a rung go on to the next one, and nobody waits for a whole rung.
 *
 * In the paper a decision depends on which results have arrived. Here the trials of a rung have an order, and a rung looks at them in
 * this order: once the first j have a loss, those among the best ⌊j/factor⌋ of these j are promoted. So the promotions follow from
 * the losses alone, whatever the order in which they arrive; more losses never take a promotion back.
 */

/** The decision that a trial goes on to the next rung, and what it was based on. */
export interface Promotion {
  /** The trial, as its place in the order of the first rung. */
  readonly trial: number;
  /** The rung that it comes from, from 0. */
  readonly rung: number;
  readonly loss: number;
  /** Its place among the first `among` trials of the rung, from 1; the best `keeps` of them go on. */
  readonly place: number;
  readonly among: number;
  readonly keeps: number;
}

interface Rung {
  /** The trials that reached the rung, in the order in which they are looked at. */
  readonly trials: number[];
  readonly losses: Map<number, number>;
  /** The number of trials that were looked at. */
  settled: number;
  /** Those, from the lowest loss; of equal losses, the earlier trial is first. */
  readonly sorted: number[];
  readonly promoted: Set<number>;
  /** Whether all its trials were looked at, and no other trial will reach it. */
  closed: boolean;
}

/** Where a trial has come to. */
export interface Standing {
  readonly rung: number;
  /** Its loss there; null if there is none yet, Infinity if the run failed. */
  readonly loss: number | null;
  /** Its place among the trials of this rung that were looked at, and how many these are; null before it was looked at. */
  readonly place: number | null;
  readonly among: number;
  /** Whether it is certain to go no further: all trials of the rung were looked at, and it was not promoted. */
  readonly stopped: boolean;
}

/** The competition of `count` trials over `rungs` rungs. */
export class Competition {
  readonly #factor: number;
  readonly #rungs: readonly Rung[];
  readonly #kept: (trial: number, rung: number) => boolean;
  #promotions: Promotion[] = [];

  /** `kept` says which promotions hold although the losses no longer say so: those of an earlier process, before a run was repeated. */
  constructor(
    count: number,
    { rungs, factor }: { readonly rungs: number; readonly factor: number },
    kept: (trial: number, rung: number) => boolean = () => false,
  ) {
    this.#factor = factor;
    this.#kept = kept;
    this.#rungs = Array.from({ length: rungs }, (_, i) => ({
      trials: i > 0 ? [] : Array.from({ length: count }, (_one, trial) => trial),
      losses: new Map(),
      settled: 0,
      sorted: [],
      promoted: new Set(),
      closed: false,
    }));
  }

  /** Takes note of the loss of a trial at a rung, Infinity if the run failed. Only the first one counts. Returns new promotions. */
  tell(trial: number, rung: number, loss: number): readonly Promotion[] {
    const { losses } = this.#rungs[rung]!;
    if (losses.has(trial)) return [];
    losses.set(trial, loss);
    this.#promotions = [];
    let isClosed = true;
    for (const [index, one] of this.#rungs.entries()) {
      this.#advance(index);
      isClosed &&= one.settled === one.trials.length;
      if (isClosed && !one.closed) this.#close(index);
    }
    return this.#promotions;
  }

  /** Looks at the trials of a rung whose turn it is. */
  #advance(index: number): void {
    const rung = this.#rungs[index]!;
    for (; rung.settled < rung.trials.length; rung.settled++) {
      const trial = rung.trials[rung.settled]!;
      const loss = rung.losses.get(trial);
      if (loss === undefined) break;
      const place = placeOf(rung, loss);
      rung.sorted.splice(place, 0, trial);
      const keeps = Math.floor((rung.settled + 1) / this.#factor);
      // Only two can be new among the best: the trial itself, and the one for which there is room now.
      for (const at of [place, keeps - 1])
        if (at >= 0 && at < keeps) this.#promote(index, at, rung.settled + 1, keeps);
    }
  }

  #promote(index: number, at: number, among: number, keeps: number): void {
    const rung = this.#rungs[index]!;
    const trial = rung.sorted[at]!;
    const loss = rung.losses.get(trial)!;
    const next = this.#rungs[index + 1];
    if (next === undefined || loss === Infinity || rung.promoted.has(trial)) return;
    rung.promoted.add(trial);
    next.trials.push(trial);
    this.#promotions.push({ trial, rung: index, loss, place: at + 1, among, keeps });
  }

  /** Closes a rung that nobody can reach any more. Its best goes on in any case. */
  #close(index: number): void {
    const rung = this.#rungs[index]!;
    const { sorted, promoted } = rung;
    rung.closed = true;
    if (promoted.size === 0 && sorted.length > 0) this.#promote(index, 0, sorted.length, 1);
    for (const [at, trial] of sorted.entries())
      if (this.#kept(trial, index)) this.#promote(index, at, sorted.length, promoted.size);
  }

  /** How far each trial has come. */
  standings(): Standing[] {
    const places = this.#rungs.map(({ sorted }) => new Map(sorted.map((trial, at) => [trial, at + 1])));
    const standings = this.#rungs[0]!.trials.map((): Standing => ({ rung: 0, loss: null, place: null, among: 0, stopped: false })); // prettier-ignore
    for (const [index, rung] of this.#rungs.entries()) {
      for (const trial of rung.trials) {
        const loss = rung.losses.get(trial) ?? null;
        const place = places[index]!.get(trial) ?? null;
        const stopped = loss === Infinity || (rung.closed && index + 1 < this.#rungs.length);
        standings[trial] = { rung: index, loss, place, among: rung.settled, stopped };
      }
    }
    return standings;
  }
}

/** The number of trials of `sorted` that are better: with a lower loss, or with the same one and an earlier turn. */
function placeOf({ sorted, losses }: Rung, loss: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (losses.get(sorted[middle]!)! <= loss) low = middle + 1;
    else high = middle;
  }
  return low;
}
