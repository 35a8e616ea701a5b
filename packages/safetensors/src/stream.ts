/**
 * Bytes from a stream of the web into memory that is there already, through one buffer that is used again and again: reading a file in many
 * pieces makes no garbage of its size.
 */

interface Read<B extends ArrayBufferLike> {
  readonly value?: Uint8Array<B> | undefined;
  readonly done: boolean;
}

/** A reader that fills the buffers that it is given. */
interface FillingReader {
  read(view: Uint8Array<ArrayBuffer>): Promise<Read<ArrayBuffer>>;
  cancel(): Promise<void>;
}

/** A reader that makes its own buffers. */
interface OwnReader {
  read(): Promise<Read<ArrayBufferLike>>;
  cancel(): Promise<void>;
}

/** The part of the web's `ReadableStream` that is used here. */
export interface ByteStream {
  /** Throws for streams that make their own buffers. */
  getReader(options: { mode: "byob" }): FillingReader;
  /** The reader that every stream has. */
  getReader(): OwnReader;
}

/** The bytes that are asked for at once. */
const PIECE_BYTES = 2 ** 18;

/** A buffer that no stream is reading into now; kept, so that reading a file in many pieces makes no garbage. */
let spare: ArrayBuffer | null = null;

/**
 * The streams that are being read. Nothing else would keep one alive: what waits for its next bytes is known to it alone, and Chromium
 * collects a blob's stream together with its unanswered read, which is then never answered.
 */
const reading = new Set<Pieces>();

/** Reads `stream` into `target`, which may be shared memory, until either ends; returns the bytes read. The stream is used up. */
export async function streamInto(stream: ByteStream, target: Uint8Array): Promise<number> {
  const next = piecesOf(stream);
  reading.add(next);
  let at = 0;
  try {
    while (at < target.byteLength) {
      const piece = await next.read();
      if (piece === null) break;
      target.set(piece.subarray(0, target.byteLength - at), at);
      at += Math.min(piece.byteLength, target.byteLength - at);
    }
    return at;
  } finally {
    await next.cancel().finally(() => reading.delete(next));
  }
}

interface Pieces {
  /** The next bytes, valid until the next call; null at the end. */
  read(): Promise<Uint8Array | null>;
  cancel(): Promise<void>;
}

/** Into one buffer, again and again, where the stream can do that; otherwise in buffers of the stream's own. */
function piecesOf(stream: ByteStream): Pieces {
  let reader: FillingReader;
  try {
    reader = stream.getReader({ mode: "byob" });
  } catch {
    const own = stream.getReader();
    return { read: async () => (await own.read()).value ?? null, cancel: () => own.cancel() };
  }
  let buffer: ArrayBuffer | null = spare ?? new ArrayBuffer(PIECE_BYTES);
  spare = null;
  return {
    read: async () => {
      const view = new Uint8Array(buffer!);
      buffer = null; // the reader takes it, and gives it back with the bytes
      const { value, done } = await reader.read(view);
      buffer = value?.buffer ?? null;
      return done ? null : value!;
    },
    cancel: async () => {
      spare = buffer;
      await reader.cancel();
    },
  };
}
