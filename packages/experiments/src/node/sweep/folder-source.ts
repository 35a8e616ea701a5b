/**
 * The runs of a sweep whose folder any number of agents share, on any number of machines: each claims a run in the folder,
 * performs it, and publishes its result there. What ended elsewhere is seen by looking at the folder.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Outcome, type RunConfig, runId } from "../../sweep/config.ts";
import { differenceOf } from "../../sweep/difference.ts";
import type { ClaimedRun, Publication, RunSource, Schedule } from "../../sweep/source.ts";
import { type Claim, type Claimed, Claims } from "./claims.ts";
import type { RunStore } from "./store.ts";

/** The options of `folderSource`. */
export interface FolderSourceOptions {
  /** The seconds without a sign of life after which an agent is taken for dead. Default: 90. */
  readonly staleSeconds?: number;
  /** Called when an agent's run is taken over: the agent died, or was silent for too long. */
  readonly onTakenOver?: (id: string, attempt: number) => void;
}

/** The number of attempts after which a run whose agents die is recorded as failed. */
const MOST_ATTEMPTS = 3;

/** In parts of the time after which an agent is taken for dead: the pauses between signs of life, and between looks at the folder. */
const BEATS = 6;
const LOOKS = 18;
/** A listing of the folder is not repeated sooner, however often others were faster. */
const LISTED_MS = 1000;

/** Opens the folder of a sweep, which must be prepared, as a source of runs. */
export async function folderSource(
  store: RunStore,
  schedule: Schedule,
  options: FolderSourceOptions = {},
): Promise<FolderSource> {
  const source = new FolderSource(store, schedule, options);
  await source.open();
  return source;
}

/** The runs of a sweep's folder: see `folderSource`. */
export class FolderSource implements RunSource {
  readonly #store: RunStore;
  readonly #schedule: Schedule;
  readonly #claims: Claims;
  readonly #staleMs: number;
  readonly #onTakenOver: FolderSourceOptions["onTakenOver"];
  #joins = false;

  /** The runs of the schedule by id, in its order; the cursor passes those that are not free. */
  #runs: readonly RunConfig[] = [];
  #cursor = 0;
  /** Those by id, and the number of those that have ended; null until somebody asks. */
  #byId: ReadonlyMap<string, RunConfig> | null = null;
  #ended: number | null = null;
  readonly #done = new Set<string>();
  readonly #failed = new Set<string>();
  /** What the schedule has not been told of yet. */
  #news: { readonly done: string[]; readonly failed: string[] } = { done: [], failed: [] };
  /** How many times it is being told of some at the moment: their results are read first. */
  #telling = 0;
  /** The results of here among them, which need not be read. */
  readonly #own = new Map<string, Outcome>();
  /** Failures of earlier sweeps, with their stamps: these runs are tried again. */
  #earlier: ReadonlyMap<string, string> = new Map();
  readonly #mine = new Map<string, Claim>();
  #others: ReadonlyMap<string, Claimed> = new Map();

  /** Ends the wait for a run that is free: something has ended here. */
  #woken = new AbortController();
  #listedAt = -Infinity;
  #examinedAt = -Infinity;
  #turn: Promise<unknown> = Promise.resolve();
  #beats: NodeJS.Timeout | undefined;

  constructor(store: RunStore, schedule: Schedule, { staleSeconds, onTakenOver }: FolderSourceOptions) {
    this.#store = store;
    this.#schedule = schedule;
    this.#claims = new Claims(store.directory, staleSeconds);
    this.#staleMs = this.#claims.staleMs;
    this.#onTakenOver = onTakenOver;
  }

  /** Looks at the folder. Failures are tried again by a sweep that finds nobody at work, and not by one that joins others. */
  async open(): Promise<void> {
    this.#plan();
    const claims = await this.#claims.examine(await this.#claims.list());
    this.#joins = claims.some(({ dead }) => !dead);
    if (!this.#joins) {
      const stamps = (await this.#store.ids("failed")).map(async (id) => [id, (await this.#store.stamp("failed", id)) ?? ""] as const); // prettier-ignore
      this.#earlier = new Map(await Promise.all(stamps));
    }
    await this.#list();
  }

  /** Whether others were at work when the folder was opened. */
  get joins(): boolean {
    return this.#joins;
  }

  /** The number of runs that have no outcome yet, as far as is known. */
  get left(): number {
    this.#ended ??= this.#runs.filter((config) => this.#hasEnded(runId(config))).length;
    return this.#runs.length - this.#ended;
  }

  /** The number of runs that failed in this sweep, here or elsewhere. */
  get failures(): number {
    return [...this.#failed].filter((id) => this.#plannedRuns.has(id)).length;
  }

  next(signal: AbortSignal): Promise<ClaimedRun | null> {
    const turn = this.#turn.then(() => this.#next(signal)); // the runs are handed out one after another
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #next(signal: AbortSignal): Promise<ClaimedRun | null> {
    const wake = (): void => this.#woken.abort();
    signal.addEventListener("abort", wake);
    try {
      return await this.#wait(signal);
    } finally {
      signal.removeEventListener("abort", wake);
    }
  }

  async #wait(signal: AbortSignal): Promise<ClaimedRun | null> {
    while (!signal.aborted) {
      this.#woken = new AbortController();
      if (isOver(this.#examinedAt, this.#staleMs / BEATS)) {
        await this.#list();
        const abandoned = await this.#abandoned();
        if (abandoned !== null) return abandoned;
      }
      const free = await this.#free();
      if (free !== null) return free;
      const before = this.#runs;
      await this.#list();
      if (this.#runs === before && this.left === 0 && !this.#hasNews) return null;
      if (this.#runs !== before) continue;
      const found = (await this.#free()) ?? (await this.#abandoned());
      if (found !== null) return found;
      await sleep(this.#staleMs / LOOKS, undefined, { signal: this.#woken.signal }).catch(() => undefined);
    }
    return null;
  }

  /** Claims the first run that nobody has; null if there is none. */
  async #free(): Promise<ClaimedRun | null> {
    while (this.#cursor < this.#runs.length) {
      const config = this.#runs[this.#cursor++]!;
      const id = runId(config);
      if (this.#hasEnded(id) || this.#mine.has(id) || this.#others.has(id)) continue;
      const claim = await this.#claims.take(id, 1);
      const run = claim === null ? null : await this.#confirmed(claim, config);
      if (run !== null) return run;
      if (isOver(this.#listedAt, LISTED_MS)) await this.#list(); // what is known of the others is out of date
    }
    return null;
  }

  /** Takes over a run whose agent is dead; null if there is none. */
  async #abandoned(): Promise<ClaimedRun | null> {
    this.#examinedAt = performance.now();
    const wanted = [...this.#others.values()].filter(
      ({ id }) => this.#plannedRuns.has(id) && !this.#hasEnded(id),
    );
    for (const state of await this.#claims.examine(wanted)) {
      if (!state.dead) continue;
      const { id, attempt, text } = state;
      const claim = await this.#claims.take(id, attempt + 1);
      if (claim === null) continue;
      await this.#claims.remove(state);
      const run = await this.#confirmed(claim, this.#plannedRuns.get(id)!);
      if (run === null) continue;
      this.#onTakenOver?.(id, claim.attempt);
      if (claim.attempt <= MOST_ATTEMPTS) return run;
      const last = text === null ? "" : `; the last was process ${text.pid} on ${text.host}`;
      await run.fail(
        `given up after ${MOST_ATTEMPTS} attempts: each time its agent died or was silent for too long${last}`,
      );
    }
    return null;
  }

  /** A claim as a run, unless the run has ended, or has a later claim that a listing out of date did not show: then it is given up. */
  async #confirmed(claim: Claim, config: RunConfig): Promise<ClaimedRun | null> {
    const { id, attempt } = claim;
    if (this.#claims.lastAttempt(id) !== attempt || (await this.#endedMeanwhile(id))) {
      await this.#claims.remove(claim);
      return null;
    }
    this.#mine.set(id, claim);
    this.#beats ??= setInterval(() => this.#beat(), this.#staleMs / BEATS).unref();
    return this.#run(claim, config);
  }

  #beat(): void {
    for (const claim of this.#mine.values()) void claim.beat();
  }

  #run(claim: Claim, config: RunConfig): ClaimedRun {
    const { id } = claim;
    const end = (): void => {
      this.#mine.delete(id);
      if (this.#mine.size === 0) {
        clearInterval(this.#beats);
        this.#beats = undefined;
      }
      claim.remove();
    };
    /** Gives the claim up, too, if the outcome cannot be written. */
    const publishing = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        try {
          end();
        } catch {
          // the first error says more
        }
        throw error;
      }
    };
    return {
      config,
      checkpoint: this.#store.checkpoint(config),
      lost: claim.lost,
      onStep: (step) => claim.progress(step),
      publish: async (result) => {
        const publication = await publishing(() => this.#publish(claim, result));
        end();
        await this.#learn();
        return publication;
      },
      fail: async (message) => {
        const mine = claim.isMine() && !(await this.#endedMeanwhile(id));
        if (mine) {
          await publishing(() => this.#store.fail({ id, config, message }));
          this.#note("failed", id);
        }
        end();
        await this.#learn();
        return mine;
      },
      release: () => {
        end();
        this.#cursor = 0;
        this.#woken.abort();
        return Promise.resolve();
      },
    };
  }

  async #publish(claim: Claim, result: Outcome): Promise<Publication> {
    const duration = (performance.now() - claim.begun) / 1000;
    const counts = claim.isMine() && (await this.#store.finish({ ...result, duration }));
    if (counts) {
      if (this.#schedule.learn !== undefined) this.#own.set(claim.id, result);
      this.#note("done", claim.id);
      return { counts, difference: null };
    }
    const other = await this.#store.result(claim.id);
    return { counts, difference: other === null ? null : differenceOf(other, result) };
  }

  /** Reads what is in the folder: results and failures of all agents, and their claims. */
  async #list(): Promise<void> {
    const [done, failed, claims] = await Promise.all([
      this.#store.ids("runs"),
      this.#store.ids("failed"),
      this.#claims.list(),
    ]);
    this.#listedAt = performance.now();
    for (const id of done) this.#note("done", id);
    for (const id of failed) if (!this.#hasEnded(id)) await this.#failedMeanwhile(id);
    this.#others = new Map(claims.filter(({ id }) => !this.#mine.has(id)).map((one) => [one.id, one]));
    this.#cursor = 0;
    await this.#learn();
  }

  async #learn(): Promise<void> {
    if (this.#schedule.learn === undefined) return;
    const { done, failed } = this.#news;
    if (done.length + failed.length === 0) return;
    this.#news = { done: [], failed: [] };
    this.#telling++;
    try {
      const results: Outcome[] = [];
      for (const id of done) {
        const result = this.#own.get(id) ?? (await this.#store.result(id));
        if (result !== null) results.push(result);
        this.#own.delete(id);
      }
      this.#schedule.learn(results, failed);
      this.#plan();
    } finally {
      this.#telling--;
      this.#woken.abort();
    }
  }

  /** Whether something has ended that a schedule which learns has not been told of: there may be further runs. */
  get #hasNews(): boolean {
    const { done, failed } = this.#news;
    return this.#schedule.learn !== undefined && this.#telling + done.length + failed.length > 0;
  }

  #plan(): void {
    this.#runs = this.#schedule.runs();
    this.#byId = this.#ended = null;
    this.#cursor = 0;
  }

  get #plannedRuns(): ReadonlyMap<string, RunConfig> {
    return (this.#byId ??= new Map(this.#runs.map((config) => [runId(config), config])));
  }

  #note(kind: "done" | "failed", id: string): void {
    const ended = kind === "done" ? this.#done : this.#failed;
    if (ended.has(id)) return;
    if (!this.#hasEnded(id) && this.#ended !== null && this.#plannedRuns.has(id)) this.#ended++;
    ended.add(id);
    this.#news[kind].push(id);
    this.#woken.abort();
  }

  #hasEnded(id: string): boolean {
    return this.#done.has(id) || this.#failed.has(id);
  }

  /** Whether a run has ended since the folder was read. */
  async #endedMeanwhile(id: string): Promise<boolean> {
    if (this.#store.has("runs", id)) this.#note("done", id);
    else await this.#failedMeanwhile(id);
    return this.#hasEnded(id);
  }

  /** Takes note of the failure of a run, unless it is one of an earlier sweep. */
  async #failedMeanwhile(id: string): Promise<void> {
    if (!this.#store.has("failed", id)) return;
    const stamp = await this.#store.stamp("failed", id);
    if (stamp !== null && stamp !== this.#earlier.get(id)) this.#note("failed", id);
  }
}

const isOver = (since: number, ms: number): boolean => performance.now() - since > ms;
