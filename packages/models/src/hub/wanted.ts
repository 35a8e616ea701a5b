/** Which files of a repository are needed. Weights that are not safetensors (.bin, .pt, .gguf) are never loaded. */
import { type Files, parseIndex, readText } from "@tiedlora/core";
import { COMPANIONS, INDEX_FILE, SINGLE_FILE } from "../file-names.ts";
import { HubError } from "./errors.ts";
import type { HubFile, Listing } from "./listing.ts";
import { type HubName, nameText } from "./name.ts";

/** What a repository is loaded for. */
export type HubPart = "model" | "config" | "tokenizer" | "adapter";

const CONFIG = "config.json";
const ADAPTER_CONFIG = "adapter_config.json";
/** The weights of adapters, as PEFT and mlx-lm name them. */
const ADAPTER_WEIGHTS = ["adapter_model.safetensors", "adapters.safetensors"];

interface Needs {
  /** The file without which a repository is of another kind. */
  readonly main: string;
  /** Files that are loaded where they are present. */
  readonly also: readonly string[];
  /** Names that the weights may have, of which the first that is present is loaded; an index brings its shards. */
  readonly weights: readonly string[];
}

const NEEDS: { readonly [P in HubPart]: Needs } = {
  model: { main: CONFIG, also: COMPANIONS, weights: [SINGLE_FILE, INDEX_FILE] },
  config: { main: CONFIG, also: [], weights: [] },
  tokenizer: { main: "tokenizer.json", also: COMPANIONS, weights: [] },
  adapter: { main: ADAPTER_CONFIG, also: [], weights: ADAPTER_WEIGHTS },
};

/** The files to load first: all but the shards, whose names are in the index. Throws HubError if a part is not in the listing. */
export function wantedFiles(part: HubPart, { files }: Listing, name: HubName): HubFile[] {
  const { main, also, weights } = NEEDS[part];
  const some = [...files.keys()].slice(0, 8).join(", ") || "nothing";
  if (!files.has(main))
    throw new HubError(`${nameText(name)}: there is no ${main}, only ${some}; expected ${KINDS[part]}`, 0);
  const chosen = weights.find((file) => files.has(file));
  if (weights.length > 0 && chosen === undefined)
    throw new HubError(
      `${nameText(name)}: its weights are not safetensors (it has ${some}); other formats can run code or lose precision and are ` +
        `not loaded: expected ${weights[0]}, as the model's author or a conversion in Python (save_pretrained) writes it`,
      0,
    );
  const names = new Set([main, ...also, ...(chosen === undefined ? [] : [chosen])]);
  return [...names].flatMap((file) => files.get(file) ?? []);
}

const KINDS: { readonly [P in HubPart]: string } = {
  model: "a model in the format of transformers",
  config: "a model in the format of transformers",
  tokenizer:
    "a fast tokenizer (in Python: AutoTokenizer.from_pretrained(NAME, use_fast=True).save_pretrained(DIR))",
  adapter: "an adapter of train, peft or mlx-lm",
};

/** The shards that the index among the files names. Throws HubError if one is not in the listing. */
export async function wantedShards(loaded: Files, listing: Listing, name: HubName): Promise<HubFile[]> {
  const index = await readText(loaded, INDEX_FILE);
  if (index === null || listing.files.has(SINGLE_FILE)) return [];
  return [...new Set(parseIndex(index, INDEX_FILE).values())].map((shard) => {
    const file = listing.files.get(shard);
    if (file !== undefined) return file;
    throw new HubError(`${nameText(name)}: ${INDEX_FILE} names ${shard}, which is not in the repository`, 0);
  });
}

/** The files that are missing for a part, where the hub cannot be asked what there is. */
export async function missingFiles(part: HubPart, files: Files): Promise<string[]> {
  const { main, weights } = NEEDS[part];
  const has = async (file: string): Promise<boolean> => {
    const source = await files.open(file);
    await source?.close?.();
    return source !== null;
  };
  const missing = (await has(main)) ? [] : [main];
  if (weights.length === 0) return missing;
  for (const file of weights) {
    if (!(await has(file))) continue;
    if (file !== INDEX_FILE) return missing;
    const shards = new Set(parseIndex((await readText(files, file))!, file).values());
    for (const shard of shards) if (!(await has(shard))) missing.push(shard);
    return missing;
  }
  return [...missing, weights[0]!];
}
