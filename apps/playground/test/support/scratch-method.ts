/**
 * A process of its own: puts one entry into the table of methods, before anything has read it, and prints what the library, the
 * command line, sweeps and the page make of that.
 */
import { type Entry, ENTRIES, TABLE } from "../../../../packages/tiedlora/src/methods/table.ts";

const RATE = 0.0042;
const scratch: Entry = {
  ...TABLE.lora,
  name: "scratch",
  title: "Scratch",
  learningRate: RATE,
  member: null,
  declare: ({ rank = 8 } = {}) => ({
    ...TABLE.lora.declare({ rank }),
    name: "scratch",
    learningRate: RATE,
    recipe: { method: "scratch", options: { rank } },
  }),
};
Object.assign(TABLE, { scratch });
(ENTRIES as Entry[]).push(scratch);

const { LEARNING_RATES, METHOD_NAMES, methodByName, methods } = await import("tiedlora");
const { methodFromRecipe } = await import("../../../../packages/tiedlora/src/methods/rebuild.ts");
const { expandSweep, parseSweep } = await import("@tiedlora/experiments");
const { main } = await import("../../../../packages/cli/src/main.ts");
const page = await import("../../src/method.ts");

const yaml = "on: { tasks: choice }\nout: x\nvary: { method: scratch, rank: 2 }\n";
const run = expandSweep(parseSweep(yaml, "sweep.yaml")).find(({ method }) => method !== "none");
const choice = page.presetChoice("scratch" as never, 4);
const made = methodByName("scratch", { rank: 2 });

/** The command's exit code, and what it wrote. */
async function tiedlora(...argv: string[]): Promise<{ readonly code: number; readonly out: string }> {
  let out = "";
  const code = await main(argv, {
    interactive: false,
    out: (line) => void (out += `${line}\n`),
    write: (text) => void (out += text),
    info: () => undefined,
  });
  return { code, out };
}

const params = await tiedlora(..."params --model llama-2-7b --method scratch --rank 8 --json".split(" "));
const help = async (command: string): Promise<boolean> =>
  /\bscratch\b/.test((await tiedlora(command, "--help")).out);

process.stdout.write(
  JSON.stringify({
    "methods.scratch": "scratch" in methods,
    METHOD_NAMES: (METHOD_NAMES as readonly string[]).includes("scratch"),
    methodByName: made.name,
    LEARNING_RATES: (LEARNING_RATES as Readonly<Record<string, number>>)["scratch"],
    "from a file": methodFromRecipe(made.recipe, "adapter.json").name,
    "params --help": await help("params"),
    "train --help": await help("train"),
    "demo --help": await help("demo"),
    params: params.code,
    sweep: [run?.method, run?.lr],
    page: [page.presetName("scratch"), page.methodOf(choice).name, page.rateOf(choice)],
    "preset of the page": (page.PRESET_NAMES as readonly string[]).includes("scratch"),
  }),
);
