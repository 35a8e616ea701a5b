/** Turns tokens into text as they are generated: a token may be part of a character, and text the start of a stop string. */
import type { Tokenizer } from "./tokenizer.ts";

/** Enough tokens before a new one for the decoder to get spaces right. */
const CONTEXT = 6;

/** The text of one sequence of tokens, as far as it is certain; stop strings, which end it, are not part of it. */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #stops: readonly string[];
  readonly #ids: number[];
  /** Tokens from `#from` to `#read` have been returned as text; they are decoded again as the context of the tokens that follow. */
  #from: number;
  #read: number;
  /** Text that is decoded, but may be the start of a stop string. */
  #held = "";
  #stopped = false;

  /** @param prompt the tokens before the text */
  constructor(tokenizer: Tokenizer, prompt: readonly number[], stops: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#stops = stops.filter((stop) => stop !== "");
    this.#ids = [...prompt];
    this.#read = prompt.length;
    this.#from = Math.max(0, prompt.length - CONTEXT);
  }

  /** Whether a stop string has occurred. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** The text that is certain after this token; may be empty. */
  push(token: number): string {
    if (this.#stopped) return "";
    this.#ids.push(token);
    const text = this.#fresh();
    if (text.endsWith("\uFFFD")) return ""; // a character is not complete yet
    return this.#release(text, false);
  }

  /** The rest of the text, which was held back. */
  end(): string {
    return this.#stopped ? "" : this.#release(this.#fresh(), true);
  }

  #fresh(): string {
    const decode = (to: number): string => this.#tokenizer.decode(this.#ids.slice(this.#from, to));
    return decode(this.#ids.length).slice(decode(this.#read).length);
  }

  #release(text: string, all: boolean): string {
    if (this.#ids.length > this.#read) {
      this.#from = this.#read;
      this.#read = this.#ids.length;
    }
    this.#held += text;
    const found = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    this.#stopped = found.length > 0;
    const safe = this.#stopped ? Math.min(...found) : all ? this.#held.length : this.#safeLength();
    const out = this.#held.slice(0, safe);
    this.#held = this.#stopped ? "" : this.#held.slice(safe);
    return out;
  }

  /** How much of the held text cannot be the start of a stop string. */
  #safeLength(): number {
    let safe = this.#held.length;
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, this.#held.length); n > 0; n--) {
        if (this.#held.endsWith(stop.slice(0, n))) {
          safe = Math.min(safe, this.#held.length - n);
          break;
        }
      }
    }
    return safe;
  }
}
