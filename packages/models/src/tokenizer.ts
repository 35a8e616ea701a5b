/** Text to token ids and back, from a tokenizer.json; chats to text, by the model's own template. */
import { Tokenizer as Pipeline } from "@huggingface/tokenizers";
import { type Files, FormatError, isRecord, parseJsonObject, readText } from "@tiedlora/core";

import { renderTemplate } from "./template.ts";
import { checkTokenizer } from "./tokenizer-check.ts";

/** One turn of a chat. */
export interface ChatMessage {
  /** "system", "user" or "assistant", if the template supports it. */
  readonly role: string;
  readonly content: string;
}

/** Options of rendering a chat template. */
export interface ChatOptions {
  /** End with the start of an answer. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Further variables of the template, e.g. `tools`, `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

const SPECIAL = ["bos_token", "eos_token", "pad_token", "unk_token"] as const;
type Special = (typeof SPECIAL)[number];

interface Parts {
  readonly tokenizer: Record<string, unknown>;
  /** special_tokens_map.json, overridden by tokenizer_config.json. */
  readonly config: Record<string, unknown>;
  readonly template: string | null;
  readonly file: string;
}

/** The tokenizer of a tokenizer.json and the files beside it; made by `loadTokenizer` and `loadPretrained`. */
export class Tokenizer {
  readonly #parts: Parts;
  readonly #pipeline: Pipeline;
  readonly #special: Readonly<Record<Special, string | null>>;
  readonly #template: string | null;
  readonly #file: string;
  /** The unknown token, as the `model` of tokenizer.json gives it: its text (`unk_token`) or its id (`unk_id`). */
  readonly #unknown: unknown;

  constructor(parts: Parts) {
    const { tokenizer, config, template, file } = parts;
    this.#parts = parts;
    // The package reads these five fields without checking that they exist.
    const complete = {
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      added_tokens: [],
      ...tokenizer,
    };
    checkTokenizer(tokenizer, file);
    try {
      // Unless the files ask for it, text comes back as it was; the package would drop spaces before punctuation.
      const cleanUp = config["clean_up_tokenization_spaces"] ?? false;
      this.#pipeline = new Pipeline(complete, { ...config, clean_up_tokenization_spaces: cleanUp });
    } catch (cause) {
      throw new FormatError({
        file,
        found: whatIs(cause),
        expected: "a tokenizer that @huggingface/tokenizers can read",
      });
    }
    const text = (name: Special): string | null => {
      const value = config[name];
      if (typeof value === "string") return value;
      return isRecord(value) && typeof value["content"] === "string" ? value["content"] : null;
    };
    this.#special = {
      bos_token: text("bos_token"),
      eos_token: text("eos_token"),
      pad_token: text("pad_token"),
      unk_token: text("unk_token"),
    };
    this.#template = template;
    this.#file = file;
    const model = tokenizer["model"];
    this.#unknown = isRecord(model) ? (model["unk_token"] ?? model["unk_id"] ?? null) : null;
  }

  /** Token ids; unless `specialTokens` is false, with the special tokens that the post-processor adds, e.g. Llama's <s>. */
  encode(text: string, options: { readonly specialTokens?: boolean } = {}): number[] {
    const { ids } = this.#used((): { ids: number[] } =>
      this.#pipeline.encode(text, { add_special_tokens: options.specialTokens ?? true }),
    );
    if (ids.every((id: unknown) => Number.isInteger(id))) return ids;
    const found = "a token without an id, and no token for what is unknown";
    throw new FormatError({ file: this.#file, tensor: "model", found, expected: "a vocabulary that has all that its patterns and merges make" }); // prettier-ignore
  }

  /** The text of token ids, without special tokens unless `skipSpecialTokens` is false. */
  decode(ids: readonly number[], options: { readonly skipSpecialTokens?: boolean } = {}): string {
    if (ids.length === 0) return ""; // the package refuses it
    return this.#used(() =>
      this.#pipeline.decode([...ids], { skip_special_tokens: options.skipSpecialTokens ?? true }),
    );
  }

  /** Runs `work`. An error in it is reported as a fault of the file, since any text and any ids are valid arguments. */
  #used<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw new FormatError({ file: this.#file, found: whatIs(cause), expected: "a tokenizer that can be used" }); // prettier-ignore
    }
  }

  /** The id of a token; undefined if there is no such token. */
  tokenId(token: string): number | undefined {
    return this.#pipeline.token_to_id(token);
  }

  /** The token of an id, as the vocabulary writes it; undefined if there is no such id. */
  token(id: number): string | undefined {
    return this.#pipeline.id_to_token(id);
  }

  #id(name: Special): number | null {
    const token = this.#special[name];
    return token === null ? null : (this.tokenId(token) ?? null);
  }
  /** The id of the token that begins a text; null if the tokenizer has none. */
  get bosId(): number | null {
    return this.#id("bos_token");
  }
  /** The id of the token that ends a text; null if the tokenizer has none. */
  get eosId(): number | null {
    return this.#id("eos_token");
  }
  /** The id of the token that pads rows; null if the tokenizer has none. */
  get padId(): number | null {
    return this.#id("pad_token");
  }

  /** The id that stands for text outside of the vocabulary; null if the tokenizer has none. */
  get unkId(): number | null {
    if (typeof this.#unknown === "number") return this.#unknown;
    return typeof this.#unknown === "string" ? (this.tokenId(this.#unknown) ?? null) : this.#id("unk_token");
  }

  /** The number of tokens. A model's vocabulary may be padded to more: never size a model by this number. */
  get size(): number {
    return this.#pipeline.get_vocab(true).size;
  }

  /** The same tokenizer with another chat template (Jinja, as in Hugging Face's files). */
  withChatTemplate(template: string): Tokenizer {
    return new Tokenizer({ ...this.#parts, template });
  }

  /** Whether the model comes with a chat template. */
  get hasChatTemplate(): boolean {
    return this.#template !== null;
  }

  /** Whether the chat template mentions a role by name. Messages of other roles may be written too, or left out. */
  namesRole(role: string): boolean {
    return [`"${role}"`, `'${role}'`].some((quoted) => this.#template?.includes(quoted));
  }

  /** Whether the chat template uses a variable, such as `tools`. */
  templateNames(variable: string): boolean {
    return this.#template !== null && new RegExp(`\\b${variable}\\b`).test(this.#template);
  }

  /** The chat as text. Encode it with `specialTokens: false`: the template writes special tokens itself. */
  chat(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    if (this.#template === null) {
      throw new FormatError({
        file: this.#file,
        tensor: "chat_template",
        found: "none",
        expected: "a chat template",
        hint: "This model was not trained on chats: give it plain text.",
      });
    }
    try {
      return renderTemplate(this.#template, {
        messages,
        add_generation_prompt: options.addGenerationPrompt ?? true,
        ...Object.fromEntries(SPECIAL.map((name) => [name, this.#special[name] ?? ""])),
        ...options.variables,
      });
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause);
      throw new FormatError({
        file: this.#file,
        tensor: "chat_template",
        found: message,
        expected: "a template that renders",
      });
    }
  }
}

/** The message of the package's error; TypeError and RangeError, from parts that it does not check, get a clearer message. */
function whatIs(cause: unknown): string {
  if (cause instanceof TypeError || cause instanceof RangeError)
    return "a part of another form than the format has";
  return cause instanceof Error ? cause.message : String(cause);
}

/** Reads tokenizer.json and, where present, tokenizer_config.json, special_tokens_map.json and chat_template.jinja. */
export async function loadTokenizerFrom(files: Files): Promise<Tokenizer> {
  const file = "tokenizer.json";
  const text = await readText(files, file);
  if (text === null) {
    throw new FormatError({
      file: files.name,
      found: `no ${file}`,
      expected: "a fast tokenizer",
      hint: "In Python: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR).",
    });
  }
  const read = async (name: string): Promise<Record<string, unknown>> => {
    const content = await readText(files, name);
    return content === null ? {} : parseJsonObject(content, name);
  };
  const config = { ...(await read("special_tokens_map.json")), ...(await read("tokenizer_config.json")) };
  const template = (await readText(files, "chat_template.jinja")) ?? templateOf(config["chat_template"]);
  return new Tokenizer({ tokenizer: parseJsonObject(text, file), config, template, file });
}

/** The chat template of a config: a single one, or the one named "default", for plain chats, in a list of named ones. */
function templateOf(value: unknown): string | null {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return null;
  const named: unknown = value.find((item) => isRecord(item) && item["name"] === "default");
  return isRecord(named) && typeof named["template"] === "string" ? named["template"] : null;
}
