/** Finds what --model and --adapter name: a directory, or a repository of the Hugging Face hub, loaded with a line of progress. */
import { dirname } from "node:path";
import {
  downloadModel,
  type DownloadProgress,
  type HubPart,
  isOnHub,
  nameText,
  parseHubName,
} from "@tiedlora/models/node";
import { checkPath } from "./load.ts";
import { MovingLine } from "./moving-line.ts";
import { paint, type Output } from "./output.ts";

/** A model or an adapter on this machine. */
export interface Found {
  /** Its directory, which for a repository of the hub is in the cache. */
  readonly directory: string;
  /** The repository and the commit, if it is from the hub. */
  readonly hub: { readonly id: string; readonly commit: string } | null;
}

interface FindOptions {
  /** The setting that names it. */
  readonly setting?: string;
  readonly part?: HubPart;
}

const EXPECTED: { readonly [P in "model" | "adapter"]: string } = {
  model: "a Hugging Face model directory (config.json, model.safetensors, tokenizer.json)",
  adapter: "an adapter of train, peft or mlx-lm",
};

/** The directory that a setting names. Throws UsageError if there is none, and HubError if the hub does not have it either. */
export async function findModel(
  given: string,
  output: Output,
  { setting = "--model", part = "model" }: FindOptions = {},
): Promise<Found> {
  if (!(await isOnHub(given))) {
    const kind = part === "adapter" ? "adapter" : "model";
    const hub = parseHubName(given) === null ? "" : `, or, since a directory ${dirname(given)} is here, ${given}@main for the hub's`; // prettier-ignore
    await checkPath(setting, given, "directory", `expected ${EXPECTED[kind]}, or the name of one on the Hugging Face hub${hub}`); // prettier-ignore
    return { directory: given, hub: null };
  }
  const id = parseHubName(given)!.id;
  const line = new DownloadLine(output);
  try {
    const onNote = (note: string): void => line.note(`${paint("yellow", "note:")} ${note}`);
    const { directory, commit } = await downloadModel(given, { part, onNote, onProgress: line.show });
    return { directory, hub: { id, commit } };
  } finally {
    line.stop();
  }
}

/** What is written into files about a model: its name and commit, or the path as it was given. */
export function pinned(given: string, { hub }: Found): string {
  return hub === null ? given : nameText({ id: hub.id, revision: hub.commit, pinned: true });
}

/** The origin of a base model, for files of adapters. */
export function baseOf(given: string, { hub }: Found): Record<string, string> {
  return hub === null ? { base_model: given } : { base_model: hub.id, base_revision: hub.commit };
}

/** A moving line on a terminal; elsewhere a line for each large file. */
class DownloadLine {
  readonly #output: Output;
  #line: MovingLine | null = null;
  #file = "";

  constructor(output: Output) {
    this.#output = output;
  }

  readonly show = ({ file, loaded, size, index, files }: DownloadProgress): void => {
    const fresh = file !== this.#file;
    this.#file = file;
    if (!this.#output.interactive) {
      if (fresh) this.#output.info(`loading ${file}, ${megabytes(size)} (${index} of ${files})`);
      return;
    }
    if (fresh) {
      this.#line?.stop();
      this.#line = new MovingLine("MB", Math.ceil(size / 1e6));
    }
    this.#line!.update(Math.floor(loaded / 1e6), `${file} (${index} of ${files})`);
  };

  note(text: string): void {
    if (this.#line === null) this.#output.info(text);
    else this.#line.log(text);
  }

  stop(): void {
    this.#line?.stop();
  }
}

function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
