/** A file to be written, of an adapter or a model. */

/** A file's name and content. */
export type OutputFile = readonly [name: string, content: string | AsyncIterable<Uint8Array> | Uint8Array];
