/** What hub.browser.test.ts does in a page. */
import { reference } from "@tiedlora/core";
import { BrowserRepository } from "../../src/hub/browser-store.ts";
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

/** Notes another commit for the name's revision, and reads what is noted, again and again. Returns what was read and not written. */
async function note(id: string, times: number): Promise<readonly unknown[]> {
  const name = { id, revision: "main", pinned: false };
  const repository = await BrowserRepository.open(name);
  const wrong: unknown[] = [];
  for (let i = 0; i < times; i++) {
    await repository.setCommit(String(i % 10).repeat(40));
    const read = await repository.commit();
    if (!/^(\d)\1{39}$/.test(read ?? "")) wrong.push(read);
  }
  return wrong;
}

Object.assign(globalThis, { jobs: { load, complete, note, forget: forgetModel } });
