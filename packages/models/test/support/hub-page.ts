/** What hub.browser.test.ts does in a page. */
import { reference } from "@tiedlora/core";
import { forgetModel, hubFiles, type HubFilesOptions, loadPretrained } from "../../src/hub.ts";

const FAST = { retries: 2, pauseMs: 1 };

/** The bytes of a file of the repository, added up with their positions; and the files whose progress was told. */
async function load(name: string, file: string, options: HubFilesOptions): Promise<unknown> {
  const seen = new Set<string>();
  const notes: string[] = [];
  const files = await hubFiles(name, {
    ...FAST,
    ...options,
    onProgress: (progress) => seen.add(progress.file),
    onNote: (note) => notes.push(note),
  });
  const source = (await files.open(file))!;
  const bytes = await source.read(0, source.size);
  const sum = bytes.reduce((total, byte, i) => (total + byte * ((i % 251) + 1)) % 1_000_003, 0);
  return { size: source.size, sum, seen: [...seen], notes };
}

/** What a model loaded by name generates. */
async function complete(name: string, endpoint: string): Promise<string> {
  const device = reference();
  const { model, tokenizer } = await loadPretrained(name, { device, endpoint, ...FAST });
  return `${model.config.modelType} ${tokenizer.encode("ab").join(" ")}`;
}

Object.assign(globalThis, { jobs: { load, complete, forget: forgetModel } });
