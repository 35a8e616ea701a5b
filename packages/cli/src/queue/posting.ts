/**
 * What the two commands that give work to a queue have in common: an announcement that is renewed, a queue whose jobs end elsewhere, and
 * a note if nobody takes them.
 */
import type { Queue } from "bullmq";
import { type Output, paint } from "../output.ts";
import type { QueueServer } from "./server.ts";
import { ANNOUNCED } from "./store.ts";

export interface PostingOptions {
  /** The id of what is announced, and the name of its queue. */
  readonly id: string;
  readonly queue: string;
  readonly announcement: object;
  /** Called each time before it is announced: stores what whoever joins needs. */
  readonly prepare?: () => Promise<void>;
  /** Jobs without a result are looked after so often, in case that an event, or what the server had in memory, was lost. */
  readonly lookAfterMs: number;
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** An announcement is renewed so often, and gone if it was not renewed for so long. */
const ANNOUNCE_MS = 30_000;
const ANNOUNCED_SECONDS = 300;
/** The time for the last words to a server, which may be away. */
const CLOSE_MS = 3000;

export class Posting {
  readonly queue: Queue;
  readonly #server: QueueServer;
  readonly #options: PostingOptions;
  #timer: NodeJS.Timeout | undefined;
  /** The jobs that have ended, as events say, since `takeEnded`. */
  readonly #ended = new Set<string>();
  /** Ends the present wait. */
  #wake: () => void = () => undefined;
  #toldToWait = false;

  private constructor(server: QueueServer, options: PostingOptions, queue: Queue) {
    this.#server = server;
    this.#options = options;
    this.queue = queue;
  }

  /** Opens the queue, and announces it. */
  static async open(server: QueueServer, options: PostingOptions): Promise<Posting> {
    const posting = new Posting(server, options, await server.queue(options.queue));
    const events = await server.events(options.queue);
    const ended = ({ jobId }: { readonly jobId: string }): void => {
      posting.#ended.add(jobId);
      posting.#wake();
    };
    events.on("completed", ended).on("failed", ended);
    options.signal.addEventListener("abort", () => posting.#wake());
    await posting.announce();
    posting.#timer = setInterval(() => void posting.announce().catch(() => undefined), ANNOUNCE_MS);
    return posting;
  }

  async announce(): Promise<void> {
    const { id, announcement, prepare } = this.#options;
    await prepare?.();
    const text = Buffer.from(JSON.stringify(announcement));
    await this.#server.store.set(ANNOUNCED + id, text, ANNOUNCED_SECONDS);
  }

  /** The jobs that have ended since the last call. */
  takeEnded(): ReadonlySet<string> {
    const ended = new Set(this.#ended);
    this.#ended.clear();
    return ended;
  }

  /** Resolves when a job has ended, or after a while: "late". */
  woken(): Promise<"woken" | "late"> {
    return new Promise((resolve) => {
      if (this.#ended.size > 0) return resolve("woken");
      const timer = setTimeout(() => resolve("late"), this.#options.lookAfterMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve("woken");
      };
    });
  }

  /** Says once that no worker does what there is to do, if that is so. */
  async sayThatItWaits(what: string, isAlone: () => Promise<boolean>): Promise<void> {
    if (this.#toldToWait || !(await isAlone().catch(() => false))) return;
    this.#toldToWait = true;
    this.#options.output.info(
      `${paint("yellow", "note:")} no worker has ${what} yet: start some with tiedlora worker --queue ${this.#server.shown} (with the password)`,
    );
  }

  /** Withdraws it, and does `more` while that is possible. */
  async close(more: () => Promise<unknown>): Promise<void> {
    clearInterval(this.#timer);
    const work = async (): Promise<void> => {
      await this.#server.store.delete([ANNOUNCED + this.#options.id]);
      await more();
    };
    await Promise.race([
      work().catch(() => undefined),
      new Promise((resolve) => setTimeout(resolve, CLOSE_MS).unref()),
    ]);
  }
}
