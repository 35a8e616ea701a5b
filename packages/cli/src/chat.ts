/** `tiedlora chat`: a conversation with a model, a line at a time. */
import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import { streamText, type ChatMessage, type Prompt, type Tokenizer } from "@tiedlora/models";
import { chatTokens } from "./sample.ts";
import { addSamplingFlags, checkSampling, samplingOf, type SamplingFlags } from "./generate.ts";
import { paint, type Output } from "./output.ts";
import { addModelFlags, addQuantize, withModel, type ModelFlags, type Opened } from "./with-model.ts";

interface ChatFlags extends ModelFlags, SamplingFlags {
  readonly system?: string;
}

export function addChat(program: Command, output: Output): void {
  const command = program.command("chat").description("talk to a model, with or without an adapter");
  addSamplingFlags(addQuantize(addModelFlags(command)))
    .option("--system <text>", "a system message to open the conversation with")
    .addHelpText(
      "after",
      "\nIn a chat, /reset forgets the conversation, and /exit or Ctrl-D ends it.\n" +
        "\nExample:\n  tiedlora chat --model ./llama --adapter ./adapter --temperature 0.7",
    )
    .action(async (flags: ChatFlags) => {
      checkSampling(flags);
      await withModel(flags, output, (opened) => converse(opened, flags, output));
    });
}

async function converse(opened: Opened, flags: ChatFlags, output: Output): Promise<void> {
  const { model, tokenizer } = opened;
  if (!tokenizer.hasChatTemplate)
    output.info("the model has no chat template: it continues your lines as plain text");
  const start: ChatMessage[] = flags.system === undefined ? [] : [{ role: "system", content: flags.system }];
  let messages = [...start];
  const lines = createInterface({
    input: process.stdin,
    output: process.stderr,
    prompt: paint("bold", "> "),
  });
  try {
    lines.prompt();
    for await (const line of lines) {
      const content = line.trim();
      if (content === "/exit") return;
      if (content === "/reset") messages = [...start];
      else if (content !== "") {
        messages.push({ role: "user", content });
        let answer = "";
        for await (const piece of streamText(
          model,
          tokenizer,
          promptOf(tokenizer, messages),
          samplingOf(flags),
        )) {
          output.write(piece);
          answer += piece;
        }
        output.out("");
        messages.push({ role: "assistant", content: answer.trim() });
      }
      lines.prompt();
    }
  } finally {
    lines.close();
  }
}

/** The prompt in the form of the model's template; without a template, all messages so far, one per line. */
function promptOf(tokenizer: Tokenizer, messages: readonly ChatMessage[]): Prompt {
  if (tokenizer.hasChatTemplate) return chatTokens(tokenizer, messages);
  return messages.map(({ content }) => content).join("\n");
}
