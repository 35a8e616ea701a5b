/** Requests to the hub: with its token, repeated after failures that pass, and with an end where no answer comes. */
import { type Asked, HubError, isTemporary, refusal, unreachable } from "./errors.ts";
import type { HubName } from "./name.ts";
import type { Words } from "./words.ts";

/** How a download stands. */
export interface DownloadProgress {
  readonly file: string;
  /** Bytes of this file that are there, and that it has. */
  readonly loaded: number;
  readonly size: number;
  /** The number of this file, from 1, and of all files. */
  readonly index: number;
  readonly files: number;
}

/** Settings of a download, where a page or a program has its own; none is needed. */
export interface HubOptions {
  /** The hub, or a mirror of it. Default: HF_ENDPOINT in Node, or https://huggingface.co. */
  readonly endpoint?: string;
  /** A token of an account, for models that are private or gated. Default in Node: HF_TOKEN, or the one of `hf auth login`. */
  readonly token?: string;
  /** Called while files are loaded. */
  readonly onProgress?: (progress: DownloadProgress) => void;
  /** Told what is done without being asked for: a copy is used, another process is waited for. */
  readonly onNote?: (note: string) => void;
  /** Ends the download; what has been loaded is kept, and the next one goes on there. */
  readonly signal?: AbortSignal;
  /** Failures in a row, without a byte between them, after which a download is given up. Default: 5. */
  readonly retries?: number;
  /** The first pause between attempts, in ms; each further one is twice as long. Default: 1000. */
  readonly pauseMs?: number;
  /** Time without any byte after which a connection counts as cut. Default: 30,000 ms. */
  readonly timeoutMs?: number;
}

const HUB = "https://huggingface.co";

/** The longest pause that the hub may ask for. */
const LONGEST_PAUSE_MS = 300_000;

export class HubClient {
  readonly name: HubName;
  readonly endpoint: string;
  /** What messages call the settings. */
  readonly words: Words;
  readonly retries: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly #token: string | undefined;
  readonly #pauseMs: number;

  constructor(name: HubName, options: HubOptions, words: Words) {
    const { endpoint = HUB, token, signal, retries = 5, pauseMs = 1000, timeoutMs = 30_000 } = options;
    this.name = name;
    this.words = words;
    this.endpoint = endpoint.replace(/\/+$/, "");
    if (!URL.canParse(this.endpoint))
      throw new HubError(`${words.endpoint} ${endpoint}: expected an address, such as ${HUB}`, 0);
    this.retries = retries;
    this.timeoutMs = timeoutMs;
    this.signal = signal;
    this.#token = token;
    this.#pauseMs = pauseMs;
  }

  get asked(): Asked {
    const { name, endpoint, words } = this;
    return { name, endpoint, words, withToken: this.#token !== undefined };
  }

  /** The address of a file. */
  fileUrl(commit: string, path: string): string {
    return `${this.endpoint}/${this.name.id}/resolve/${commit}/${encodeURIComponent(path)}`;
  }

  /** `fetch` for small answers. Throws HubError for all that is not a success. */
  readonly fetch: typeof fetch = (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    return this.request(url, new Headers(init?.headers), () => AbortSignal.timeout(this.timeoutMs));
  };

  /**
   * Requests an address until it answers, with a pause after each failure. Throws HubError for an answer that is neither a success
   * nor status 416. `limit` gives the signal that ends one attempt.
   */
  async request(url: string, headers: Headers, limit: () => AbortSignal): Promise<Response> {
    // Only the hub itself gets the token; `fetch` takes it away when another host is redirected to.
    if (this.#token !== undefined && new URL(url).origin === new URL(this.endpoint).origin)
      headers.set("Authorization", `Bearer ${this.#token}`);
    for (let attempt = 0; ; attempt++) {
      const outcome = await this.#attempt(url, headers, limit());
      if (!(outcome instanceof HubError)) return outcome.response;
      if (!outcome.temporary || attempt >= this.retries) throw outcome;
      await this.pause(attempt, outcome);
    }
  }

  async #attempt(
    url: string,
    headers: Headers,
    limit: AbortSignal,
  ): Promise<{ response: Response } | HubError> {
    const signal = this.signal === undefined ? limit : AbortSignal.any([this.signal, limit]);
    try {
      // A browser's own cache would keep a second copy, and ask for other ranges than ours.
      const response = await fetch(url, { headers, signal, cache: "no-store" });
      if (response.ok || response.status === 416) return { response };
      const error = await refusal(response, this.asked);
      if (isTemporary(response.status))
        retryAfter.set(error, Number(response.headers.get("Retry-After")) * 1000 || 0);
      return error;
    } catch (cause) {
      this.signal?.throwIfAborted();
      return unreachable(this.asked, cause);
    }
  }

  /** Waits before the next attempt, at least as long as the hub asked for. */
  async pause(attempt: number, error?: HubError): Promise<void> {
    const asked = error === undefined ? 0 : (retryAfter.get(error) ?? 0);
    const ms = Math.max(Math.min(asked, LONGEST_PAUSE_MS), this.#pauseMs * 2 ** attempt);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      this.signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(this.signal!.reason as Error);
      });
    });
    this.signal?.throwIfAborted();
  }
}

/** The pause in ms that the hub asked for with a refusal. */
const retryAfter = new WeakMap<HubError, number>();
