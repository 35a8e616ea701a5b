/** A file of an adapter or a model that is to be written. */

/** A file's name and content. */
export type OutputFile = readonly [name: string, content: string | AsyncIterable<Uint8Array> | Uint8Array];
