/** What the queue's server keeps beside the jobs: bytes by key for a limited time, and announcements of work. */

export interface Store {
  get(key: string): Promise<Uint8Array | null>;
  /** Keeps bytes for some seconds. */
  set(key: string, bytes: Uint8Array, seconds: number): Promise<void>;
  delete(keys: readonly string[]): Promise<void>;
  /** The texts under all keys that begin with ANNOUNCED, by the rest of the key. */
  announced(): Promise<Map<string, string>>;
}

/** The beginning of the keys of announcements. */
export const ANNOUNCED = "announced/";

/** Joins a header, which can be written as JSON, and bytes; these begin at a multiple of four, so that numbers can be read in place. */
export function pack(header: unknown, ...body: readonly Uint8Array[]): Uint8Array {
  const json = Buffer.from(JSON.stringify(header));
  const text = Buffer.concat([json, Buffer.alloc(-json.length & 3, " ")]);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(text.length);
  return Buffer.concat([size, text, ...body]);
}

/** Takes apart what `pack` has joined. */
export function unpack(bytes: Uint8Array): { readonly header: unknown; readonly body: Uint8Array } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = 4 + buffer.readUInt32LE(0);
  return { header: JSON.parse(buffer.toString("utf8", 4, end)), body: bytes.subarray(end) };
}
