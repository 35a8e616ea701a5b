/** A tiny model in a directory of Hugging Face's layout, for tests that start from files. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reference } from "@tiedlora/core";
import { configFrom, createModel, modelFiles } from "@tiedlora/models";
import { writeFilesAtomic } from "@tiedlora/core/node";

/** Printable ASCII, a character a token, between <s> and </s>. */
const CHARACTERS = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).concat("\n");
const SPECIAL = ["<s>", "</s>"];

const TOKENIZER = {
  version: "1.0",
  added_tokens: SPECIAL.map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })),
  normalizer: null,
  pre_tokenizer: { type: "Split", pattern: { Regex: "[\\s\\S]" }, behavior: "Isolated", invert: false },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
  },
  decoder: { type: "Fuse" },
  model: {
    type: "BPE",
    vocab: Object.fromEntries([...SPECIAL, ...CHARACTERS].map((token, id) => [token, id])),
    merges: [],
  },
};

const TEMPLATE =
  "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant: {% endif %}";

/** Writes the model; two layers of a Llama, hidden 8. `config`: fields that differ. */
export async function writeModel(directory: string, config: Record<string, unknown> = {}): Promise<void> {
  const device = reference();
  const model = createModel(
    configFrom({
      model_type: "llama",
      vocab_size: SPECIAL.length + CHARACTERS.length,
      hidden_size: 8,
      intermediate_size: 12,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      max_position_embeddings: 64,
      initializer_range: 0.4,
      bos_token_id: 0,
      eos_token_id: 1,
      ...config,
    }),
    { device, seed: 1 },
  );
  await writeFilesAtomic(directory, [
    ...modelFiles(model),
    ["tokenizer.json", JSON.stringify(TOKENIZER)],
    [
      "tokenizer_config.json",
      JSON.stringify({ bos_token: "<s>", eos_token: "</s>", chat_template: TEMPLATE }),
    ],
  ]);
  device.close();
}

/** Examples in which the answer follows from the question. */
export function writeExamples(path: string, count = 24): void {
  const words = ["red", "green", "blue", "old", "new", "tall"];
  const line = (i: number): string =>
    JSON.stringify({
      prompt: `say ${words[i % 6]}${i % 4}`,
      completion: `${words[i % 6]}${"!".repeat(i % 3)}`,
    });
  writeFileSync(path, Array.from({ length: count }, (_, i) => `${line(i)}\n`).join("")); // prettier-ignore
}

/** Files of the task gsm8k in a folder of its name: sums that fit into a few characters. */
export function writeSums(directory: string): void {
  const line = (i: number): string => JSON.stringify({ question: `${i}+${i}`, answer: `#### ${2 * i}` });
  mkdirSync(join(directory, "gsm8k"), { recursive: true });
  for (const [name, count] of [["train", 12], ["test", 4]] as const) // prettier-ignore
    writeFileSync(join(directory, "gsm8k", `${name}.jsonl`), Array.from({ length: count }, (_, i) => line(i)).join("\n")); // prettier-ignore
}

/** A temporary directory, removed when the process ends. */
export function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), "tiedlora-"));
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}
