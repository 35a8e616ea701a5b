/** `tiedlora serve`: a model and adapters behind an endpoint of OpenAI's form. */
import { basename, resolve } from "node:path";
import type { Command } from "commander";
import { ContinuousBatch } from "@tiedlora/models";
import { isOnHub } from "@tiedlora/models/node";
import { adaptersOf } from "tiedlora";
import { checkPath } from "./load.ts";
import { interruptible } from "./interrupt.ts";
import { path, whole } from "./options.ts";
import { paint, type Output } from "./output.ts";
import { namedAdapters } from "./named-adapters.ts";
import { ServedModels } from "./serve/adapters.ts";
import type { Engine } from "./serve/answers.ts";
import { ApiServer, isLoopback } from "./serve/server.ts";
import { WatchedFolder } from "./serve/watched.ts";
import { UsageError } from "./settings.ts";
import { addModelFlags, addQuantize, findAdapter, type ModelFlags, type Opened, withModel } from "./with-model.ts"; // prettier-ignore

interface ServeFlags extends Omit<ModelFlags, "adapter"> {
  readonly adapter?: readonly string[];
  readonly adapters?: string;
  readonly name?: string;
  readonly host: string;
  readonly port: number;
  readonly apiKey?: string;
  readonly batch: number;
  readonly context?: number;
  readonly maxWaiting: number;
  readonly maxRequest: number;
}

/** The variable of the environment for the key: other users of a machine see the arguments of its processes. */
const KEY_VARIABLE = "TIEDLORA_API_KEY";

export function addServe(program: Command, output: Output): void {
  const command = program
    .command("serve")
    .description("answer requests for text over HTTP, as OpenAI's API does, with any number of adapters");
  addQuantize(addModelFlags(command, { several: true }))
    .option(
      "--adapters <dir>",
      "a folder of adapters: each folder in it is served under its name as long as it is there; new ones need no restart",
      path,
    )
    .option("--name <name>", "the name of the base model in requests (default: that of its directory)")
    .option(
      "--host <address>",
      "the address to listen on; 0.0.0.0 lets others on your network in",
      "127.0.0.1",
    ) // prettier-ignore
    .option("--port <n>", "the port; 0 takes any that is free", whole(0, 65535), 8000)
    .option("--api-key <key>", `the key that requests must bear (default: that of ${KEY_VARIABLE}, or none)`)
    .option("--batch <n>", "the most sequences that are decoded together; others wait", whole(1), 32)
    .option("--context <n>", "the most tokens of a prompt and its answer (default: the model's)", whole(2))
    .option("--max-waiting <n>", "the most sequences that may wait; more are refused (429)", whole(1), 1000)
    .option("--max-request <kB>", "the most kilobytes of a request", whole(1), 8192)
    .addHelpText(
      "after",
      "\nRequests name the base model or an adapter as their model. Served are /v1/completions, /v1/chat/completions, /v1/models,\n" +
        "/v1/load_lora_adapter, /v1/unload_lora_adapter and /health. Ctrl-C ends it once the requests that run are answered.\n" +
        "\nExample:\n  tiedlora serve --model ./llama --adapter support=./support-adapter legal=./legal-adapter",
    )
    .action((flags: ServeFlags) => serve(flags, output));
}

async function serve(flags: ServeFlags, output: Output): Promise<void> {
  const adapters = namedAdapters(flags.adapter ?? []);
  for (const { path } of adapters)
    if (!(await isOnHub(path))) await checkPath("--adapter", path, "directory", "expected an adapter");
  if (flags.adapters !== undefined) await checkPath("--adapters", flags.adapters, "directory");
  const { adapter: _, ...rest } = flags;
  const first = adapters[0] === undefined ? {} : { adapter: adapters[0].path };
  await withModel({ ...rest, ...first, attach: false }, output, async (opened) => {
    const engine = engineFor(opened, flags);
    for (const { name, path } of adapters) await engine.served.load(name, await findAdapter(path, output));
    const watched = flags.adapters === undefined ? null : new WatchedFolder(flags.adapters, engine.served, watching(output)); // prettier-ignore
    await watched?.start();
    try {
      await interruptible((signal) => answer(engine, flags, output, signal));
    } finally {
      await watched?.stop();
    }
  });
}

/** How often a folder of adapters is looked at. */
const LOOK_MS = 1000;

const watching = (output: Output): ConstructorParameters<typeof WatchedFolder>[2] => ({
  everyMs: LOOK_MS,
  onNote: (note) => output.info(note),
});

function engineFor(
  { model, tokenizer, directory, base }: Opened,
  { batch: rows, context, name, maxWaiting }: ServeFlags,
): Engine {
  const most = model.config.maxPositions;
  if (context !== undefined && context > most)
    throw new UsageError(
      `--context ${context}: the model knows ${most} positions; give at most --context ${most}`,
    );
  const alone = (adapter: string): boolean => {
    const { plan, method } = adaptersOf(model).get(adapter);
    return plan.replaced.length > 0 || method.prefix !== undefined || method.prompt !== undefined;
  };
  const batch = new ContinuousBatch(model, { rows, alone });
  const own = base["base_revision"] === undefined ? basename(resolve(directory)) : base["base_model"]!;
  const served = new ServedModels(model, batch, name ?? own);
  return { model, tokenizer, batch, served, context: context ?? most, maxWaiting };
}

async function answer(
  engine: Engine,
  { port, host, apiKey = process.env[KEY_VARIABLE], maxRequest }: ServeFlags,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const server = new ApiServer(engine, { port, host, apiKey, maxBytes: maxRequest * 1024 });
  const listening = await server.listen().catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOTFOUND" || error.code === "EADDRNOTAVAIL")
      throw new UsageError(
        `--host ${host}: this machine has no such address; give one of its own, such as 127.0.0.1`,
      );
    if (error.code !== "EADDRINUSE") throw error;
    throw new Error(`port ${port} is taken; give another: tiedlora serve --port ${port + 1}`);
  });
  if (!isLoopback(host) && apiKey === undefined)
    output.info(
      `${paint("yellow", "note:")} anybody who reaches ${host} can ask this server; give --api-key`,
    );
  const names = engine.served.all.map(({ name }) => name).join(", ");
  const at = host.includes(":") ? `[${host}]` : host;
  output.out(`${names} served at http://${at}:${listening}/v1 (Ctrl-C ends it)`);
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  const { active, waiting } = engine.batch;
  output.info(
    `the server stops${active + waiting > 0 ? ` when ${active + waiting} sequences have ended` : ""}`,
  );
  await server.close();
}
