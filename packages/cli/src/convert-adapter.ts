/** `tiedlora convert` of an adapter: a GGUF file that llama.cpp applies to its own file of the base model. */
import { stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { writeFilesAtomic } from "@tiedlora/core/node";
import { ggufAdapter, type LoraUpdate } from "@tiedlora/models";
import * as nn from "@tiedlora/nn";
import type { Adapter } from "tiedlora";
import { writing } from "tiedlora/internal/node";
import { checkOut } from "./checks.ts";
import { noteSeparator } from "./convert.ts";
import type { Output } from "./output.ts";
import { UsageError } from "./settings.ts";
import { type ModelFlags, withModelAlone } from "./with-model.ts";

/** Writes the adapter in `directory` as the file `out`, which must not exist unless `force` is given. */
export async function convertAdapter(
  directory: string,
  out: string,
  flags: Omit<ModelFlags, "adapter"> & { readonly force?: true },
  output: Output,
): Promise<void> {
  if (!/\.gguf$/i.test(out))
    throw new UsageError(`convert: an adapter becomes one file; expected a name that ends in .gguf, not ${out}`); // prettier-ignore
  if (!flags.force && (await stat(out).catch(() => null)) !== null)
    throw new UsageError(`convert: ${out} exists; give another name, or --force`);
  const folder = dirname(resolve(out));
  await checkOut(folder);
  await withModelAlone({ ...flags, adapter: directory }, output, async ({ model, adapter, separator }) => {
    const updates = await updatesOf(adapter!);
    const bytes = ggufAdapter(model.config, updates, basename(resolve(directory)));
    await writing(folder, () => writeFilesAtomic(folder, [[basename(out), bytes]]));
    output.info(`${updates.length} updates of ${adapter!.method.name} written to ${out}, for llama.cpp's --lora`); // prettier-ignore
    noteSeparator(output, separator);
  });
}

/** The updates of all modules. Throws if the adapter does more than llama.cpp can. */
async function updatesOf(adapter: Adapter): Promise<LoraUpdate[]> {
  const { method, plan } = adapter;
  const merge = "merge it into the model instead (tiedlora merge)";
  if (plan.replaced.length > 0)
    throw new Error(`the adapter trains ${plan.replaced[0]!.path} too, for which a GGUF file of LoRA has no place; ${merge}`); // prettier-ignore
  if (plan.tokens !== null)
    throw new Error(`the adapter trains rows of ${plan.tokens.site.path} too, for which a GGUF file of LoRA has no place; ${merge}`); // prettier-ignore
  const updates: LoraUpdate[] = [];
  for (const [host, layer] of adapter.layers()) {
    const low = layer.lowRank();
    if (low === null)
      throw new Error(`${method.name} has no update of the form B A, which is all that llama.cpp applies; ${merge}`); // prettier-ignore
    const [A, B] = await Promise.all([low.A, low.B].map(async (one) => Float32Array.from(await one.data())));
    const { path } = layer.member;
    updates.push({ path, rank: low.A.shape[0]!, A: A!, B: B!, scale: layer.scale });
    if (!(host instanceof nn.Linear || host instanceof nn.Embedding))
      throw new Error(`${path} is neither a linear module nor an embedding; ${merge}`);
  }
  return updates;
}
