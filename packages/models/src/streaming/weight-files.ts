/** The files of a streamed model. They are open only while weights are read, and must be those that the model was loaded from. */
import { type Files, FormatError, openWeights, type TensorFile } from "@tiedlora/core";

export class WeightFiles {
  readonly #files: Files;
  /** The stamp of each file at the time when the model was loaded. */
  readonly #stamps: ReadonlyMap<string, string>;
  #opened: TensorFile | null = null;

  private constructor(files: Files, stamps: ReadonlyMap<string, string>) {
    this.#files = files;
    this.#stamps = stamps;
  }

  /** `now`: the files, open; `tensors`: those that will be read. */
  static async of(files: Files, now: TensorFile, tensors: Iterable<string>): Promise<WeightFiles> {
    const stamps = new Map<string, string>();
    for (const tensor of tensors) {
      const { file, stamp } = await now.stamp(tensor);
      stamps.set(file, stamp);
    }
    return new WeightFiles(files, stamps);
  }

  /** Opens the files, runs `work`, which may read tensors, and closes the files. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    const opened = await openWeights(this.#files);
    this.#opened = opened;
    try {
      return await work();
    } finally {
      this.#opened = null;
      await opened.close();
    }
  }

  /**
   * Calls `read` with the open files, to read a tensor. Throws FormatError, after reading, if the tensor's file has been written
   * to since the model was loaded.
   */
  async read<T>(tensor: string, read: (file: TensorFile) => Promise<T>): Promise<T> {
    if (this.#opened === null) throw new Error(`${this.#files.name}: closed; read within use()`);
    const result = await read(this.#opened);
    const { file, stamp } = await this.#opened.stamp(tensor);
    if (this.#stamps.get(file) === stamp) return result;
    throw new FormatError({
      file,
      tensor,
      found: "a file that was written to or replaced since the model was loaded",
      expected: "the same file for as long as the model is used",
      hint: "What was computed from it is not used; load the model again.",
    });
  }
}
