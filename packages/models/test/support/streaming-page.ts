/** What streaming.browser.test.ts does in a page. */
import { cpu } from "@tiedlora/backend-cpu";
import { type BlobLike, blobSource, memoryFiles } from "@tiedlora/core";
import { loadModelFrom } from "../../src/load.ts";
import { residentGradient, streamedGradient } from "./streaming.ts";

type Chosen = ReadonlyMap<string, BlobLike>;

/** Puts files that the page is given into the storage of its origin; gives those that are read from there. */
async function stored(chosen: Chosen): Promise<Chosen> {
  const root = await navigator.storage.getDirectory();
  const files = new Map<string, BlobLike>();
  for (const [name, blob] of chosen) {
    const handle = await root.getFileHandle(name, { create: true });
    const writable = await handle.createWritable();
    await writable.write(blob as Blob);
    await writable.close();
    files.set(name, await handle.getFile());
  }
  return files;
}

const chosenFiles = (): Chosen => {
  const { files } = document.querySelector("input")!;
  return new Map([...files!].map((file) => [file.name, file]));
};

/** The loss and the gradients of the chosen model: in memory, streamed from the chosen files, and streamed from the storage. */
async function gradients(ids: number[][]): Promise<unknown[]> {
  const chosen = chosenFiles();
  const device = await cpu({ fusion: "off" });
  const batch = { inputIds: ids };
  const found: unknown[] = [await residentGradient(await loadModelFrom(memoryFiles(chosen), { device }), batch)]; // prettier-ignore
  for (const files of [chosen, await stored(chosen)])
    found.push(await streamedGradient(await loadModelFrom(memoryFiles(files), { device, stream: true }), batch)); // prettier-ignore
  device.close();
  return found.map((one) => JSON.stringify(one));
}

/** Loads the chosen model, waits for `changed`, and says why its loss cannot be computed any more. */
async function afterChange(ids: number[][]): Promise<string> {
  const device = await cpu();
  const model = await loadModelFrom(memoryFiles(chosenFiles()), { device, stream: true });
  await (globalThis as unknown as { changed(): Promise<void> }).changed();
  const why = await model.streamed!.loss({ inputIds: ids }).then(String, String);
  device.close();
  return why;
}

/** Reads the chosen files again and again, while garbage is collected all the time; the number of bytes that were read. */
async function collecting(times: number): Promise<number> {
  const timer = setInterval(() => (globalThis as unknown as { gc(): void }).gc(), 0);
  let bytes = 0;
  for (let i = 0; i < times; i++)
    for (const [name, file] of chosenFiles())
      bytes += await blobSource(file, name).readInto!(0, new Uint8Array(file.size));
  clearInterval(timer);
  return bytes;
}

Object.assign(globalThis, { jobs: { gradients, afterChange, collecting } });
