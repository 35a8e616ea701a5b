/** Chat templates that models without one are trained with: by name, or from a file. */
import { readFile } from "node:fs/promises";
import { suggestion } from "tiedlora/internal";
import { UsageError } from "./settings.ts";

const TEMPLATES = {
  /** OpenAI's ChatML, which Qwen, SmolLM and others use. */
  chatml:
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  /** Of Zephyr and TinyLlama, whose turns end with the token that ends a text. */
  zephyr:
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
} as const;

/** The names of the templates. */
export const CHAT_TEMPLATE_NAMES: readonly string[] = Object.keys(TEMPLATES);

/** The template of a name, or of a file. Throws UsageError if there is neither. */
export async function chatTemplate(given: string): Promise<string> {
  if (Object.hasOwn(TEMPLATES, given)) return TEMPLATES[given as keyof typeof TEMPLATES];
  const text = await readFile(given, "utf8").catch(() => null);
  if (text !== null) return text;
  throw new UsageError(
    `--chat-template ${given}: there is no such file; as a name, ${suggestion(given, CHAT_TEMPLATE_NAMES)}`,
  );
}
