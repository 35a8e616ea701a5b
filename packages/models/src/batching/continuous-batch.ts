/**
 * Generation for many callers at once: sequences of any lengths and adapters join a running batch and leave it, and each step of the
 * model computes one token for all of them. What a sequence is given does not depend on the others, up to rounding.
 */
import { checkOptions, refuse } from "@tiedlora/core/arguments";
import type { Decoder } from "../decoder.ts";
import { checkPrompts, DEFAULT_TOKENS } from "../generate.ts";
import { checkSampling } from "../sampling.ts";
import { NO_ADAPTER } from "./arrangement.ts";
import { Lane } from "./lane.ts";
import { Sequence, type SequenceRequest, type TokenStream } from "./sequence.ts";

/** Options of a continuous batch. */
export interface ContinuousBatchOptions {
  /** The most sequences that are decoded together; the others wait for their turn. Default: 32. */
  readonly rows?: number;
  /** Whether an adapter cannot be in one batch with others, since it replaces weights of the model. Default: none is so. */
  readonly alone?: (adapter: string) => boolean;
}

/** The most prompts that are read at once: the sequences that are being decoded wait meanwhile. */
const READ_AT_ONCE = 8;

/** The lane of all sequences whose adapters can be mixed. */
const MIXED = "";

/** Lets the event loop run: a device may compute on the calling thread, and requests would not arrive. */
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else setTimeout(resolve);
  });

/**
 * A batch that sequences join and leave while it runs:
 *
 *     const batch = new ContinuousBatch(model);
 *     for await (const { token } of batch.generate(prompt, { maxTokens: 20, adapter: "mine" })) …
 */
export class ContinuousBatch {
  readonly #model: Decoder;
  readonly #most: number;
  readonly #alone: (adapter: string) => boolean;
  readonly #lanes = new Map<string, Lane>();
  #waiting: Sequence[] = [];
  readonly #between: (() => void)[] = [];
  #running = false;

  constructor(model: Decoder, options: ContinuousBatchOptions = {}) {
    const { rows = 32, alone = () => false } = checkOptions("ContinuousBatch", options, "{ rows: 32 }");
    if (!Number.isInteger(rows) || rows < 1)
      throw new RangeError(`ContinuousBatch: rows: ${rows} was given; need a whole number from 1 on`);
    this.#model = model;
    this.#most = rows;
    this.#alone = alone;
  }

  /** The number of sequences that are being decoded. */
  get active(): number {
    return [...this.#lanes.values()].reduce((sum, lane) => sum + lane.active, 0);
  }

  /** The number of sequences that wait for a place. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Continues a prompt. The sequence takes part in the batch at once, whether its tokens are read or not; its stop tokens are not part
   * of it. Fewer tokens than `maxTokens` mean that a stop token has ended it. Throws RangeError as `generateTokens` does.
   * @param prompt token ids, at least one
   */
  generate(prompt: readonly number[], request: SequenceRequest = {}): TokenStream {
    if (!Array.isArray(prompt)) refuse("generate", prompt, "prompt", "an array of token ids");
    const { maxTokens = DEFAULT_TOKENS, logprobs = 0 } = checkOptions("generate", request, "{ maxTokens: 20 }"); // prettier-ignore
    checkSampling(request);
    checkPrompts(this.#model, [prompt], maxTokens);
    checkIds(prompt, this.#model.config.vocab);
    if (!Number.isInteger(logprobs) || logprobs < 0)
      throw new RangeError(`logprobs: ${logprobs} was given; need a whole number from 0 on`);
    const stops = new Set(request.stopTokens ?? this.#model.config.eos);
    const sequence = new Sequence(prompt, request, stops);
    this.#waiting.push(sequence);
    void this.#run();
    return sequence.stream;
  }

  /** Runs `work` when no pass of the model is in progress, such as taking an adapter off that no sequence uses any more. */
  between(work: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#between.push(() => {
        try {
          work();
          resolve();
        } catch (error) {
          reject(error);
        }
      });
      void this.#run();
    });
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    for (;;) {
      await turn();
      this.#tidy();
      if (this.#waiting.length === 0 && this.active === 0 && this.#between.length === 0) break;
      for (const sequence of this.#waiting) this.#laneOf(sequence);
      for (const [name, lane] of this.#lanes) {
        const fresh = this.#nextFor(name, lane);
        if (fresh.length > 0) await lane.admit(fresh);
        if (lane.active > 0) await lane.step();
      }
    }
    this.#lanes.clear();
    this.#running = false;
  }

  #tidy(): void {
    this.#waiting = this.#waiting.filter(({ done }) => !done);
    for (const lane of this.#lanes.values()) lane.tidy();
    for (const work of this.#between.splice(0)) work();
  }

  #nameOf({ adapter }: Sequence): string {
    return adapter !== NO_ADAPTER && this.#alone(adapter) ? adapter : MIXED;
  }

  #laneOf(sequence: Sequence): void {
    const name = this.#nameOf(sequence);
    if (!this.#lanes.has(name)) this.#lanes.set(name, new Lane(this.#model));
  }

  /** The sequences that a lane has room for, in the order of their arrival; they wait no longer. */
  #nextFor(name: string, lane: Lane): Sequence[] {
    const room = Math.min(READ_AT_ONCE, this.#most - lane.active);
    const own = this.#waiting.filter((one) => this.#nameOf(one) === name).slice(0, Math.max(0, room));
    const taken = new Set(own);
    this.#waiting = this.#waiting.filter((one) => !taken.has(one));
    return own;
  }
}

/** Checked for each sequence by itself: in the batch, an id out of range would be an error of all. */
function checkIds(prompt: readonly number[], vocab: number): void {
  const at = prompt.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocab);
  if (at >= 0)
    throw new RangeError(
      `generate: the prompt has the id ${prompt[at]} at position ${at}; the vocabulary has ${vocab}: need whole numbers from 0 to ${vocab - 1}`,
    );
}
