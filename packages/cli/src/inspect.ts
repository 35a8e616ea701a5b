/** `tiedlora inspect`: the contents of an adapter, a model, or a file of tensors. */
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { openSafetensors, openWeights, product, type TensorFile } from "@tiedlora/core";
import { directoryFiles, fileSource } from "@tiedlora/core/node";
import { linearSpecs } from "@tiedlora/models";
import { isOnHub, loadConfig } from "@tiedlora/models/node";
import { CONFIG_FILE, TENSORS_FILE } from "tiedlora/internal";
import { formatReport, inspect } from "tiedlora";
import { BACKEND_NAMES, type BackendName } from "./device.ts";
import { findModel } from "./find-model.ts";
import { oneOf } from "./options.ts";
import type { Output } from "./output.ts";
import { UsageError } from "./settings.ts";
import { withModelAlone } from "./with-model.ts";

interface InspectFlags {
  readonly model?: string;
  readonly backend: BackendName;
  readonly json?: true;
}

export function addInspect(program: Command, output: Output): void {
  program
    .command("inspect")
    .description("show what is in an adapter, a model, or a .safetensors file")
    .argument(
      "<path>",
      "the directory of an adapter or a model, a model's name on the hub, or a .safetensors file",
    )
    .option("--model <dir>", "the adapter's model, to show which modules are adapted and what is tied")
    .option("--backend <name>", "where the model is loaded", oneOf(BACKEND_NAMES), "cpu")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  tiedlora inspect ./adapter --model ./llama")
    .action(async (path: string, flags: InspectFlags) => {
      const { lines, value } = await inspectPath(path, flags, output);
      if (flags.json) output.out(JSON.stringify(value));
      else for (const line of lines) output.out(line);
    });
}

interface Found {
  readonly lines: readonly string[];
  readonly value: unknown;
}

async function inspectPath(path: string, flags: InspectFlags, output: Output): Promise<Found> {
  if (await isOnHub(path)) return model((await findModel(path, output)).directory);
  const found = await stat(path).catch(() => null);
  if (found === null) throw new UsageError(`${path}: there is no such file or directory`);
  if (found.isFile()) return tensorFile(path);
  const has = (name: string): Promise<boolean> => access(join(path, name)).then(() => true, () => false); // prettier-ignore
  if (await has(CONFIG_FILE))
    return flags.model === undefined ? tensorFile(join(path, TENSORS_FILE)) : adapter(path, flags, output);
  if (await has("config.json")) return model(path);
  throw new UsageError(
    `${path}: neither an adapter (${CONFIG_FILE}) nor a model (config.json) is in this directory`,
  );
}

async function adapter(path: string, { model, backend }: InspectFlags, output: Output): Promise<Found> {
  const flags = { adapter: path, backend, ...(model !== undefined && { model }) };
  return withModelAlone(flags, output, async ({ adapter }) => {
    const report = inspect(adapter!);
    return Promise.resolve({ lines: formatReport(report).split("\n"), value: report });
  });
}

async function tensorFile(path: string): Promise<Found> {
  const source = await fileSource(path);
  try {
    return describeTensors(await openSafetensors(source), path);
  } finally {
    await source.close?.();
  }
}

function describeTensors(
  { entries, metadata }: Pick<TensorFile, "entries" | "metadata">,
  path: string,
): Found {
  const tensors = [...entries].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  const total = tensors.reduce((n, { shape }) => n + product(shape), 0);
  return {
    value: { file: path, total, tensors, metadata: Object.fromEntries(metadata) },
    lines: [
      `${path}: ${tensors.length} tensors, ${total.toLocaleString("en-US")} numbers`,
      ...tensors.map(({ name, dtype, shape }) => `  ${name} ${dtype} [${shape.join(", ")}]`),
      ...[...metadata].map(([key, text]) => `  ${key}: ${text}`),
    ],
  };
}

async function model(path: string): Promise<Found> {
  const config = await loadConfig(path);
  const weights = await openWeights(await directoryFiles(path));
  try {
    const { lines, value } = describeTensors(weights, path);
    const { modelType, layers, hidden, heads, kvHeads, vocab, maxPositions, dtype } = config;
    const summary = { modelType, layers, hidden, heads, kvHeads, vocab, maxPositions, dtype };
    const linears = linearSpecs(config).map(({ path, in: from, out }) => ({ path, in: from, out }));
    const names = [...new Set(linears.map(({ path }) => path.slice(path.lastIndexOf(".") + 1)))];
    return {
      value: { ...summary, linears, ...(value as object) },
      lines: [
        Object.entries(summary).map(([key, one]) => `${key} ${one}`).join(", "), // prettier-ignore
        `modules that can be adapted (--target): ${names.join(", ")}`,
        ...lines,
      ],
    };
  } finally {
    await weights.close();
  }
}
