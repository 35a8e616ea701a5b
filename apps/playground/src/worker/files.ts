/** Files in and out: those that a visitor picks, and zip archives of adapters. */
import { type Files, FormatError, memoryFiles } from "@tiedlora/core";
import { type Adapter, nativeFiles, type OutputFile, peftLoraFiles } from "tiedlora";
import { unzipSync, zipSync } from "fflate";
import type { DownloadFormat } from "../protocol.ts";

/** Picked files, by their names without folders; a single zip archive is unpacked. */
export async function pickedFiles(files: readonly File[]): Promise<Files> {
  const [first] = files;
  if (files.length === 1 && first!.name.endsWith(".zip"))
    return archiveOf(new Uint8Array(await first!.arrayBuffer()), first!.name);
  return memoryFiles(new Map(files.map((file) => [plain(file.name), file])), folderOf(files));
}

/** The files in a zip archive, by their names without folders. */
export function archiveOf(zip: Uint8Array, name: string): Files {
  let entries: Record<string, Uint8Array>;
  try {
    entries = unzipSync(zip);
  } catch (cause) {
    throw new FormatError({
      file: name,
      tensor: "archive",
      found: (cause as Error).message,
      expected: "a zip archive of an adapter's files",
      hint: "Choose the archive that was downloaded, or the two files themselves.",
    });
  }
  return memoryFiles(new Map(Object.entries(entries).map(([path, bytes]) => [plain(path), bytes])), name);
}

/** A name for the picked files: that of the archive, or of the folder that contains them. */
export function nameOf(files: readonly File[]): string {
  return files.length === 1 ? files[0]!.name : folderOf(files);
}

export function folderOf(files: readonly File[]): string {
  const path = files[0]?.webkitRelativePath ?? "";
  return path.split("/")[0] || "your files";
}

const plain = (path: string): string => path.split("/").at(-1)!;

/** The files of a base model on the server of the page. */
export function servedFiles(base: URL, name: string): Files {
  return {
    name,
    open: async (file) => {
      const answer = await fetch(new URL(file, base));
      if (answer.status === 404) return null;
      if (!answer.ok) throw new Error(`${file} of the base model: the server answered ${answer.status}`);
      const bytes = new Uint8Array(await answer.arrayBuffer());
      return {
        name: file,
        size: bytes.byteLength,
        read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
      };
    },
  };
}

export async function adapterZip(adapter: Adapter, format: DownloadFormat): Promise<Uint8Array> {
  const entries: Record<string, Uint8Array> = {};
  for (const [name, content] of FILES_OF[format](adapter)) entries[name] = await bytesOf(content);
  return zipSync(entries, { level: 0 });
}

const PROVENANCE = { made_by: "playground" } as const;

/** The files of each format. The project's own format preserves tying; other programs read PEFT's LoRA. */
const FILES_OF: Readonly<Record<DownloadFormat, (adapter: Adapter) => OutputFile[]>> = {
  native: (adapter) => nativeFiles(adapter, PROVENANCE),
  peft: (adapter) => peftLoraFiles(adapter, PROVENANCE),
};

async function bytesOf(content: OutputFile[1]): Promise<Uint8Array> {
  if (typeof content === "string") return new TextEncoder().encode(content);
  if (content instanceof Uint8Array) return content;
  const parts: Uint8Array[] = [];
  for await (const part of content) parts.push(part.slice());
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
