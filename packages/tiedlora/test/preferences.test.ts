/** Preferences in TRL's formats, and chats in the layouts in which people have them: what is learned of each, and the line of a fault. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import {
  DataError,
  type Dataset,
  type EncodedExample,
  loadDataset,
  loadLabeled,
  loadPreferences,
  stackBatch,
} from "../src/index.ts";
import type { TextEncoderLike } from "../src/data/encode.ts";

/** Tokens are character codes; a chat is "T[tools]|u:hi|a:ho|", and a call "a:<name {"arguments"}>|". */
const tokenizer: TextEncoderLike = {
  encode: (text) => Array.from(text, (c) => c.charCodeAt(0)),
  eosId: 36, // "$"
  chat: (messages, { addGenerationPrompt = true, variables = {} } = {}) =>
    (variables["tools"] ? `T${JSON.stringify(variables["tools"])}|` : "") +
    (
      messages as {
        role: string;
        content: string;
        tool_calls?: { function: { name: string; arguments: object } }[];
      }[]
    )
      .map(
        ({ role, content, tool_calls: calls = [] }) =>
          `${role[0]!}:${content}${calls.map((c) => `<${c.function.name} ${JSON.stringify(c.function.arguments)}>`).join("")}|`,
      )
      .join("") +
    (addGenerationPrompt ? "a:" : ""),
};

const read = (load: typeof loadDataset, records: readonly object[], options: object = {}): Promise<Dataset> =>
  load(
    {
      name: "a.jsonl",
      pieces: async function* () {
        yield await Promise.resolve(records.map((r) => JSON.stringify(r)).join("\n"));
      },
    },
    tokenizer,
    { maxLength: 200, ...options },
  );
const text = (tokens: Iterable<number>): string => String.fromCharCode(...tokens);
/** The text of a row, with what is learned in brackets. */
function marked({ tokens, spans }: EncodedExample): string {
  let shown = "";
  let at = 0;
  for (const [start, end] of spans) {
    shown += `${text(tokens.slice(at, start))}[${text(tokens.slice(start, end))}]`;
    at = end;
  }
  return shown + text(tokens.slice(at));
}
const rows = ({ examples }: Dataset): string[][] =>
  examples.map((one) => [one, one.beside].flatMap((row) => (row ? [marked(row)] : [])));
const user = (content: string): object => ({ role: "user", content });
const assistant = (content: string): object => ({ role: "assistant", content });
const rejects = (load: typeof loadDataset, records: readonly object[], message: RegExp): Promise<void> =>
  assert.rejects(read(load, records), (error) => error instanceof DataError && message.test(error.message));

suite("pairs", () => {
  test("are prompt, chosen and rejected, as text or as messages; only the answers are learned", async () => {
    assert.deepEqual(rows(await read(loadPreferences, [{ prompt: "q", chosen: "yes", rejected: "no" }])), [
      ["q[ yes$]", "q[ no$]"],
    ]);
    const chat = {
      prompt: [user("q"), assistant("?"), user("r")],
      chosen: [assistant("yes")],
      rejected: [assistant("no")],
    };
    assert.deepEqual(rows(await read(loadPreferences, [chat])), [
      ["u:q|a:?|u:r|a:[yes|]", "u:q|a:?|u:r|a:[no|]"],
    ]);
  });

  test("have the common beginning as prompt if they have none", async () => {
    assert.deepEqual(rows(await read(loadPreferences, [{ chosen: "ask: yes", rejected: "ask: no" }])), [
      ["ask:[ yes$]", "ask:[ no$]"],
    ]);
    const whole = { chosen: [user("q"), assistant("yes")], rejected: [user("q"), assistant("no")] };
    assert.deepEqual(rows(await read(loadPreferences, [whole])), [["u:q|a:[yes|]", "u:q|a:[no|]"]]);
  });

  test("may be whole conversations beside their prompt, or answers to a prompt that is text", async () => {
    const expected = [["u:q|a:[yes|]", "u:q|a:[no|]"]];
    const whole = { chosen: [user("q"), assistant("yes")], rejected: [user("q"), assistant("no")] };
    assert.deepEqual(
      rows(await read(loadPreferences, [{ prompt: "q", prompt_id: "7", ...whole }])),
      expected,
    );
    const answers = { chosen: [assistant("yes")], rejected: [assistant("no")] };
    assert.deepEqual(rows(await read(loadPreferences, [{ prompt: "q", ...answers }])), expected);
  });

  test("whose answers are equal, or are when they are cut off, are left out and counted", async () => {
    const same = [user("q"), assistant("a")];
    const equal = [
      { prompt: "q", chosen: "a", rejected: "a" },
      { chosen: "b: c", rejected: "b: c" },
      { prompt: "question", chosen: "longer and yes", rejected: "longer and no" },
    ];
    const found = await read(loadPreferences, [{ prompt: "q", chosen: "a", rejected: "b" }, ...equal], { maxLength: 14 }); // prettier-ignore
    assert.deepEqual([found.examples.length, found.equal, found.truncated], [1, [2, 3, 4], 0]);
    await rejects(loadPreferences, [{ chosen: same, rejected: same }], /none of 1 pairs says what is preferred: their answers are equal within 200 tokens/); // prettier-ignore
    await rejects(loadPreferences, [], /the file has no examples/);
  });

  test("are rows one after the other in a batch, of one length", async () => {
    const { examples } = await read(loadPreferences, [{ prompt: "q", chosen: "yes", rejected: "no" }]);
    const { batch, kind, mask, predicted, length } = stackBatch(examples, 100, 0);
    assert.deepEqual([batch, kind, predicted, mask.length], [2, "pairs", 9, 2 * length]);
  });

  test("without a rejected answer, or of mixed kinds, are errors that name the line and the remedy", async () => {
    const whole = { prompt: "q", chosen: "a", rejected: "b" };
    await rejects(
      loadPreferences,
      [whole, { prompt: "q", chosen: "a" }],
      /a\.jsonl, line 2: "rejected" is missing: a pair .*Add it, or leave the pair out; .*--loss kto/,
    );
    await rejects(
      loadPreferences,
      [{ ...whole, rejected: 3 }],
      /line 1: "rejected" is .*3; expected text, or a list of messages/,
    );
    await rejects(
      loadPreferences,
      [{ ...whole, rejected: [assistant("x")] }],
      /prompt, chosen, rejected: some are text and some are messages/,
    );
    await rejects(
      loadPreferences,
      [{ prompt: "q", completion: "a", label: true }],
      /single answers with a label.*--loss kto/,
    );
    await rejects(loadLabeled, [whole], /these are pairs.*--loss dpo/);
  });
});

suite("answers with a label", () => {
  test("have the answer of the example before them as a second row", async () => {
    const records = [
      { prompt: "q", completion: "yes", label: true },
      { prompt: "r", completion: "no", label: false },
    ];
    const { examples } = await read(loadLabeled, records);
    assert.deepEqual(rows({ examples } as unknown as Dataset), [
      ["q[ yes$]", "q[ no$]"],
      ["r[ no$]", "r[ yes$]"],
    ]);
    assert.deepEqual(stackBatch(examples, 100, 0).labels, [true, false]);
  });

  test("need a label, and another example", async () => {
    await rejects(
      loadLabeled,
      [{ prompt: "q", completion: "a", label: "maybe" }],
      /line 1: "label" is .*maybe.*; expected true for a desirable/,
    );
    await rejects(
      loadLabeled,
      [{ prompt: "q", completion: "a", label: true }],
      /there is one example; KTO compares each with the answer of another/,
    );
  });
});

suite("chats as people have them", () => {
  test("ShareGPT's conversations, with its names of roles", async () => {
    const chat = {
      conversations: [
        { from: "system", value: "s" },
        { from: "human", value: "q" },
        { from: "gpt", value: "yes" },
      ],
    };
    assert.deepEqual(rows(await read(loadDataset, [chat])), [["s:s|u:q|a:[yes|]"]]);
    await rejects(
      loadDataset,
      [{ conversations: [{ from: "humn", value: "q" }] }],
      /line 1: conversations\[0\] is from "humn".*did you mean "human"/,
    );
  });

  test("prompt and completion as lists of messages: the turns of the prompt are not learned", async () => {
    const chat = { prompt: [user("q"), assistant("?"), user("r")], completion: [assistant("yes")] };
    assert.deepEqual(rows(await read(loadDataset, [chat])), [["u:q|a:?|u:r|a:[yes|]"]]);
  });

  test("tool calls are learned, with arguments as an object, and what tools answer is not", async () => {
    const call = { id: "1", type: "function", function: { name: "add", arguments: '{"a":1}' } };
    const messages = [
      user("q"),
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: "1", content: "2" },
      assistant("two"),
    ];
    const tools = [{ type: "function", function: { name: "add" } }];
    const shown = `T${JSON.stringify(tools)}|u:q|a:[<add {"a":1}>|]t:2|a:[two|]`;
    assert.deepEqual(rows(await read(loadDataset, [{ messages, tools }])), [[shown]]);
    assert.deepEqual(rows(await read(loadDataset, [{ messages, tools: JSON.stringify(tools) }])), [[shown]]);
    await rejects(
      loadDataset,
      [{ messages: [{ role: "assistant", content: null, tool_calls: [{ function: {} }] }] }],
      /messages\[0\] is .*expected tool calls such as/,
    );
    await rejects(loadDataset, [{ messages, tools: [3] }], /"tools" is .*; expected a list of descriptions/);
  });
});
