/**
 * The files of a streamed model, presented as one. They are open only while weights are read, and must be those that the model
 * was loaded from.
 */
import {
  type Files,
  FormatError,
  openWeights,
  type TensorData,
  type TensorEntry,
  type TensorFile,
} from "@tiedlora/core";

export class WeightFiles implements TensorFile {
  readonly name: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly #files: Files;
  /** The stamp of each file at the time when the model was loaded. */
  readonly #stamps: ReadonlyMap<string, string>;
  #opened: TensorFile | null;

  private constructor(files: Files, opened: TensorFile, stamps: ReadonlyMap<string, string>) {
    this.name = opened.name;
    this.entries = opened.entries;
    this.metadata = opened.metadata;
    this.#files = files;
    this.#stamps = stamps;
    this.#opened = opened;
  }

  /** The files, open. */
  static async open(files: Files): Promise<WeightFiles> {
    const opened = await openWeights(files);
    const stamps = new Map<string, string>();
    try {
      for (const tensor of opened.entries.keys()) {
        const { file, stamp } = await opened.stamp(tensor);
        stamps.set(file, stamp);
      }
    } catch (error) {
      await opened.close();
      throw error;
    }
    return new WeightFiles(files, opened, stamps);
  }

  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    await opened?.close();
  }

  /** Opens the files, runs `work`, which may read tensors, and closes the files. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    this.#opened = await openWeights(this.#files);
    try {
      return await work();
    } finally {
      await this.close();
    }
  }

  // What is read is given out only if the tensor's file has not been written to since the model was loaded.

  read(tensor: string): Promise<TensorData> {
    return this.#unchanged(tensor, (file) => file.read(tensor));
  }
  readBytes(tensor: string, offset: number, length: number): Promise<Uint8Array> {
    return this.#unchanged(tensor, (file) => file.readBytes(tensor, offset, length));
  }
  readInto(tensor: string, offset: number, target: Uint8Array): Promise<void> {
    return this.#unchanged(tensor, (file) => file.readInto(tensor, offset, target));
  }
  stamp(tensor: string): ReturnType<TensorFile["stamp"]> {
    return this.#now().stamp(tensor);
  }

  async #unchanged<T>(tensor: string, read: (file: TensorFile) => Promise<T>): Promise<T> {
    const opened = this.#now();
    const result = await read(opened);
    const { file, stamp } = await opened.stamp(tensor);
    if (this.#stamps.get(file) === stamp) return result;
    throw new FormatError({
      file,
      tensor,
      found: "a file that was written to or replaced since the model was loaded",
      expected: "the same file for as long as the model is used",
      hint: "What was computed from it is not used; load the model again.",
    });
  }

  #now(): TensorFile {
    if (this.#opened === null) throw new Error(`${this.#files.name}: closed; read within use()`);
    return this.#opened;
  }
}
