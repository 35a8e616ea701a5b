/**
 * Claims: files that say which agent performs which run. `claims/ID.N.json` is the N-th attempt at a run; whoever creates it has
 * the run, and shows signs of life by writing to it. Taking over from a dead agent is creating the file of the next attempt. What
 * each run needs is done synchronously: it takes microseconds, where a trip to the thread pool takes more.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { open, readdir, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { machineName } from "@tiedlora/core/node";
import { isAliveSince, startOf, writing } from "tiedlora/internal/node";

/** What a claim's file says. */
export interface ClaimText {
  /** A word that no other agent has. */
  readonly agent: string;
  readonly host: string;
  readonly pid: number;
  /** The machine, more exactly than by its host's name, and when the process began: see `isAliveSince`. */
  readonly machine: string;
  readonly start: string;
  /** When the claim was made, as ISO 8601. */
  readonly since: string;
  /** The steps that are done. */
  readonly step: number;
}

/** A claim in a listing. */
export interface Claimed {
  readonly id: string;
  readonly attempt: number;
}

/** A claim with what its file says; null if it says nothing yet. */
export interface ClaimState extends Claimed {
  readonly text: ClaimText | null;
  /** The seconds since the last sign of life. */
  readonly silent: number;
  /** Whether the agent is dead, or has been silent for so long that it is taken for dead. */
  readonly dead: boolean;
}

const NAME = /^(.+)\.(\d+)\.json$/;
/** All claims have this length, so that one write replaces the text of another. */
const LENGTH = 1024;

const absent = (error: NodeJS.ErrnoException): null => {
  if (error.code === "ENOENT" || error.code === "ESTALE") return null; // the latter: removed on a network file system
  throw error;
};

/** As `absent`, for what is called synchronously. */
function unlessAbsent<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    return absent(error as NodeJS.ErrnoException);
  }
}

/** The last attempt at each run, from the names of files. */
function lastAttempts(names: readonly string[]): Claimed[] {
  const last = new Map<string, number>();
  for (const file of names) {
    const [, id, number] = NAME.exec(file) ?? [];
    if (id !== undefined) last.set(id, Math.max(last.get(id) ?? 0, Number(number)));
  }
  return [...last].map(([id, attempt]) => ({ id, attempt }));
}

/** The claims in the folder of a sweep, as one agent sees them. */
export class Claims {
  readonly #directory: string;
  /** The time without a sign of life after which an agent is taken for dead. */
  readonly staleMs: number;
  readonly #agent: string = `${process.pid}-${Math.random().toString(36).slice(2, 12)}`;
  readonly #start: string = startOf(process.pid);

  constructor(directory: string, staleSeconds = 90) {
    this.#directory = join(directory, "claims");
    this.staleMs = staleSeconds * 1000;
  }

  /** Claims a run; null if another agent was faster. */
  async take(id: string, attempt: number): Promise<Claim | null> {
    const path = this.#path({ id, attempt });
    const text: ClaimText = {
      agent: this.#agent,
      host: hostname(),
      pid: process.pid,
      machine: machineName(),
      start: this.#start,
      since: new Date().toISOString(),
      step: 0,
    };
    return writing(this.#directory, () => {
      const file = this.#create(path);
      if (file === null) return null;
      try {
        writeFileSync(file, encode(text)); // all of it: `writeSync` may end early on a full disk
      } catch (error) {
        rmSync(path, { force: true });
        throw error;
      } finally {
        closeSync(file);
      }
      return new Claim(path, this.#path({ id, attempt: attempt + 1 }), { id, attempt }, text, this.staleMs);
    });
  }

  #create(path: string): number | null {
    try {
      return openSync(path, "wx");
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") return null;
      if (code !== "ENOENT") throw error;
      mkdirSync(this.#directory, { recursive: true }); // the first claim, or another sweep has just ended
      return this.#create(path);
    }
  }

  /** The last attempt at each run that is claimed. */
  async list(): Promise<Claimed[]> {
    return lastAttempts((await readdir(this.#directory).catch(absent)) ?? []);
  }

  /** The last attempt at a run, now; 0 if it is not claimed. */
  lastAttempt(id: string): number {
    const names = unlessAbsent(() => readdirSync(this.#directory)) ?? [];
    return lastAttempts(names).find((one) => one.id === id)?.attempt ?? 0;
  }

  /** Looks closer at claims; those that are gone by now are left out. */
  async examine(claims: readonly Claimed[]): Promise<ClaimState[]> {
    if (claims.length === 0) return [];
    const now = await this.#now();
    const states = await Promise.all(claims.map((claim) => this.#examine(claim, now)));
    return states.filter((state) => state !== null);
  }

  async #examine(claim: Claimed, now: number): Promise<ClaimState | null> {
    const file = await open(this.#path(claim), "r").catch(absent); // opening it makes a network file system look at the server
    if (file === null) return null;
    try {
      const text = decode(await file.readFile("utf8"));
      const silent = Math.max(0, now - (await file.stat()).mtimeMs);
      const gone = text !== null && text.machine === machineName() && !isAliveSince(text.pid, text.start);
      return { ...claim, text, silent: silent / 1000, dead: gone || silent > this.staleMs };
    } catch (error) {
      return absent(error as NodeJS.ErrnoException);
    } finally {
      await file.close();
    }
  }

  /** Removes the file of an attempt that was taken over, or is in vain. */
  async remove(claim: Claimed): Promise<void> {
    await rm(this.#path(claim), { force: true });
  }

  /** The time by the clock that gives files theirs: on a network file system not this machine's. */
  async #now(): Promise<number> {
    const path = join(this.#directory, `.now.${this.#agent}`);
    try {
      await writeFile(path, ".");
      return (await stat(path)).mtimeMs;
    } catch {
      return Date.now(); // the folder can only be read
    } finally {
      await rm(path, { force: true }).catch(() => undefined);
    }
  }

  #path({ id, attempt }: Claimed): string {
    return join(this.#directory, `${id}.${attempt}.json`);
  }
}

/** A claim of this process. */
export class Claim implements Claimed {
  readonly id: string;
  readonly attempt: number;
  /** When it was made, by `performance.now()`. */
  readonly begun: number = performance.now();
  readonly #path: string;
  /** The file by which another agent would take over. */
  readonly #next: string;
  readonly #staleMs: number;
  readonly #lost: AbortController = new AbortController();
  #text: ClaimText;
  #beat: number = performance.now();

  constructor(path: string, next: string, { id, attempt }: Claimed, text: ClaimText, staleMs: number) {
    this.id = id;
    this.attempt = attempt;
    this.#path = path;
    this.#next = next;
    this.#text = text;
    this.#staleMs = staleMs;
  }

  /** Aborted once the run has become another agent's. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Notes how far the run is; the next sign of life says it. */
  progress(step: number): void {
    this.#text = { ...this.#text, step };
  }

  /** Shows a sign of life, or finds out that the claim is lost. Does not block, though a network file system may for minutes. */
  async beat(): Promise<void> {
    if (this.#lost.signal.aborted) return;
    try {
      const file = await open(this.#path, "r+").catch(absent);
      try {
        const overtaken = (await stat(this.#next).catch(absent)) !== null;
        if (!this.#decide(file && (await file.readFile("utf8")), overtaken)) return;
        await file!.write(encode(this.#text), 0, LENGTH, 0);
        this.#beat = performance.now();
      } finally {
        await file?.close();
      }
    } catch {
      // A disturbance of the file system: others can see no sign of life either, and take over when this one gives up.
      if (performance.now() - this.#beat > this.#staleMs) this.#lost.abort();
    }
  }

  /** Whether the claim still is the last one. */
  isMine(): boolean {
    return this.#decide(unlessAbsent(() => readFileSync(this.#path, "utf8")), existsSync(this.#next)); // prettier-ignore
  }

  #decide(text: string | null, overtaken: boolean): boolean {
    const mine = text !== null && decode(text)?.agent === this.#text.agent && !overtaken;
    if (!mine) this.#lost.abort();
    return mine;
  }

  /** Gives the claim up. */
  remove(): void {
    if (this.isMine()) unlessAbsent(() => unlinkSync(this.#path));
  }
}

function encode(text: ClaimText): Buffer {
  return Buffer.from(
    JSON.stringify(text)
      .padEnd(LENGTH - 1)
      .concat("\n"),
  );
}

/** Null for a file that is empty or cut off, as after a crash, or that is not a claim's. */
function decode(text: string): ClaimText | null {
  try {
    const value = JSON.parse(text) as Partial<ClaimText> | null;
    const { agent, host, pid, machine, start, since, step } = value ?? {};
    const strings = [agent, host, machine, start, since].every((one) => typeof one === "string");
    return strings && typeof pid === "number" && typeof step === "number" ? (value as ClaimText) : null;
  } catch {
    return null;
  }
}
