/**
 * A connection to the queue's server, Redis or Valkey or PostgreSQL: BullMQ's queues, and a store. The packages for it are no
 * dependencies, and loaded only here. Once it is open, a server that goes away is waited for.
 */
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type * as Bull from "bullmq";
import type { Queue, QueueEvents, Worker } from "bullmq";
import { type Output, paint } from "../output.ts";
import { UsageError } from "../settings.ts";
import { staleSecondsOf } from "../stale.ts";
import { parseAddress, type QueueAddress } from "./address.ts";
import type { Store } from "./store.ts";

/** How one kind of server is reached. */
export interface Connector {
  readonly store: Store;
  /** The arguments of BullMQ's classes that follow the name. */
  readonly options: () => { readonly connection: object };
  readonly backend: unknown;
  close(): Promise<void>;
}

/** What BullMQ's classes have in common. */
interface Openable {
  on(event: "error", call: (error: Error) => void): unknown;
  waitUntilReady(): Promise<unknown>;
  close(): Promise<void>;
}

/** Unless the user has set another time: how long a worker may be silent. Its death is noticed in this time and half of it. */
const LOCK_SECONDS = 10;
const RETRY_MS = 500;

export class QueueServer {
  /** The server's address without the password. */
  readonly shown: string;
  /** The address with the password, for a process of this worker's own: never print it. */
  readonly address: string;
  readonly store: Store;
  /** A job that a worker has taken must be renewed in this time. */
  readonly lockMs: number;
  readonly #connector: Connector;
  readonly #bull: typeof Bull;
  readonly #output: Output;
  readonly #open: { close(): Promise<void> }[] = [];
  #away = false;
  #closing = false;

  private constructor(
    given: string,
    address: QueueAddress,
    connector: Connector,
    bull: typeof Bull,
    output: Output,
  ) {
    this.shown = address.shown;
    this.address = given;
    this.lockMs = 1000 * (staleSecondsOf(process.env) ?? LOCK_SECONDS);
    this.#connector = connector;
    this.#bull = bull;
    this.#output = output;
    const { store } = connector;
    this.store = {
      get: (key) => this.persist(() => store.get(key)),
      set: (key, bytes, seconds) => this.persist(() => store.set(key, bytes, seconds)),
      delete: (keys) => this.persist(() => store.delete(keys)),
      announced: () => this.persist(() => store.announced()),
    };
  }

  /**
   * Connects. Throws an error that names the cause: a package is missing, no server answers, or the password is wrong. `patient`: waits
   * for a server that does not answer, because it has been there before.
   */
  static async open(
    given: string,
    output: Output,
    { patient = false }: { readonly patient?: boolean } = {},
  ): Promise<QueueServer> {
    const address = parseAddress(given);
    const client = CLIENTS[address.kind];
    const bull = await load(address, "bullmq", () => import("bullmq"));
    let server: QueueServer | null = null;
    const onError = (error: Error): void => server?.trouble(error);
    const connector = await repeated(
      () => client.connect(address, bull, onError),
      (error) => patient && isAway(error),
    ).catch((error: unknown) => {
      throw new Error(`--queue ${address.shown}: ${reasonOf(error, address)}`, { cause: error });
    });
    server = new QueueServer(given, address, connector, bull, output);
    return server;
  }

  /** BullMQ's queue of a name. */
  async queue(name: string): Promise<Queue> {
    return this.#opened(() => this.#make(this.#bull.Queue, name, {}) as Queue);
  }

  async events(name: string): Promise<QueueEvents> {
    return this.#opened(() => this.#make(this.#bull.QueueEvents, name, {}) as QueueEvents);
  }

  /** BullMQ's worker of a queue, which takes jobs when it is asked to, and hands on those of workers that died. */
  async worker(name: string): Promise<Worker> {
    const options = { name: `${hostname()}/${process.pid}`, autorun: false, lockDuration: this.lockMs, stalledInterval: this.lockMs / 2, maxStalledCount: 5, drainDelay: 1 }; // prettier-ignore
    const worker = await this.#opened(() => this.#make(this.#bull.Worker, name, options, null) as Worker);
    await worker.startStalledCheckTimer();
    return worker;
  }

  #make(Class: unknown, name: string, options: object, ...processor: null[]): unknown {
    const { backend } = this.#connector;
    const all = { ...this.#connector.options(), prefix: "tiedlora", ...options };
    const Made = Class as new (...given: unknown[]) => unknown;
    return new Made(name, ...processor, all, ...(backend === undefined ? [] : [backend]));
  }

  /** One of BullMQ's objects, ready to be used. One that could not be made ready stays so; the next attempt has another. */
  #opened<T extends Openable>(make: () => T): Promise<T> {
    return this.persist(async () => {
      const made = make();
      made.on("error", (error) => this.trouble(error));
      try {
        await made.waitUntilReady();
      } catch (error) {
        await atMost(made.close());
        throw error;
      }
      this.#open.push(made);
      return made;
    });
  }

  /** Repeats `work` for as long as the server is away, or gives it up for the sake of other clients. */
  async persist<T>(work: () => Promise<T>): Promise<T> {
    const result = await repeated(work, (error) => {
      if (this.#closing || !(isAway(error) || isConflict(error))) return false;
      this.trouble(error as Error);
      return true;
    });
    if (this.#away) {
      this.#away = false;
      this.#output.info(`${paint("yellow", "note:")} the queue's server answers again`);
    }
    return result;
  }

  /** Says once that the server is away. Other errors of connections in the background have no effect of their own. */
  trouble(error: Error): void {
    if (this.#closing || this.#away || !isAway(error)) return;
    this.#away = true;
    this.#output.info(
      `${paint("yellow", "note:")} the queue's server, ${this.shown}, does not answer: waiting for it`,
    );
  }

  /** From now on a server that is away is an error. */
  stopWaiting(): void {
    this.#closing = true;
  }

  async closeOne(one: { close(): Promise<void> }): Promise<void> {
    this.#open.splice(this.#open.indexOf(one), 1);
    await atMost(one.close());
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#open.map((one) => atMost(one.close())));
    await atMost(this.#connector.close());
  }
}

/** Repeats `work` until it succeeds, or fails with an error after which it is not to be tried again. */
async function repeated<T>(work: () => Promise<T>, again: (error: unknown) => boolean): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!again(error)) throw error;
      await sleep(RETRY_MS);
    }
  }
}

/** Waits for the end of a connection, but not for a server that is away. */
async function atMost(work: Promise<unknown>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([
    work.catch(() => undefined),
    sleep(2000, null, { signal: timer.signal }).catch(() => null),
  ]);
  timer.abort();
}

type Connect = (
  address: QueueAddress,
  bull: typeof Bull,
  onError: (error: Error) => void,
) => Promise<Connector>;

/** The clients, by kind of server. */
const CLIENTS: { readonly [K in QueueAddress["kind"]]: { readonly connect: Connect } } = {
  redis: {
    connect: async (address, _bull, onError) => {
      const { Redis } = await load(address, "ioredis", () => import("ioredis"));
      return (await import("./redis.ts")).connectRedis(Redis, address.url, onError);
    },
  },
  postgres: {
    connect: async (address, bull, onError) => {
      const pg = await load(address, "pg", () => import("pg"));
      return (await import("./postgres.ts")).connectPostgres(pg.default.Pool, bull, address.url, onError);
    },
  },
};

async function load<T>({ kind }: QueueAddress, name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const packages = kind === "redis" ? "bullmq ioredis" : "bullmq pg";
    throw new UsageError(
      `--queue needs the package ${name}, which is not installed: npm install ${packages} (beside @tiedlora/cli: with --global if that is)`,
    );
  }
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | null)?.code ?? "";
const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const AWAY_CODES =
  /^(ECONN(REFUSED|RESET|ABORTED)|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ERR_STREAM_DESTROYED|ERR_SOCKET_CLOSED|57P0[1-3]|53300|08...)$/;
const AWAY_TEXTS =
  /connection (is closed|terminated|ended)|timeout exceeded when trying to connect|timeout expired|query read timeout|client has encountered a connection error|^(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN) |Client was closed|not queryable|max retries per request/i;
/** PostgreSQL gave up a transaction for the sake of others: a deadlock, or one that could not be serialized. Nothing of it was done. */
const CONFLICT_CODES = /^40(001|P01)$/;

const causesOf = (error: unknown): readonly unknown[] =>
  error instanceof AggregateError ? error.errors : [error];

/** Whether an error says that the server cannot be reached at present. */
const isAway = (error: unknown): boolean =>
  causesOf(error).some((one) => AWAY_CODES.test(codeOf(one)) || AWAY_TEXTS.test(textOf(one)));

const isConflict = (error: unknown): boolean =>
  causesOf(error).some((one) => CONFLICT_CODES.test(codeOf(one)));

/** Why a server could not be used at the start. */
function reasonOf(error: unknown, { kind }: QueueAddress): string {
  const text = textOf(error instanceof AggregateError ? error.errors[0] : error);
  if (/WRONGPASS|NOAUTH|NOPERM|password|authentication|SASL/i.test(text) || codeOf(error) === "28P01")
    return `the server refuses the password (${text}); give it in the address: ${kind === "redis" ? "redis://:PASSWORD@HOST" : "postgres://USER:PASSWORD@HOST/DATABASE"}`;
  if (codeOf(error) === "3D000")
    return `${text}; create it, or give another one: postgres://USER:PASSWORD@HOST/DATABASE`;
  if (!isAway(error)) return text;
  const start = kind === "redis" ? "valkey-server or redis-server" : "PostgreSQL";
  return `no server answers there (${text}); is ${start} running, and reachable from this machine?`;
}
