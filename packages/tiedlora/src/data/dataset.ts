/** A file of examples, encoded for training. */
import { exampleOrder, stackBatch, type Batch } from "./batches.ts";
import { encodeExample, type EncodedExample, type TextEncoderLike } from "./encode.ts";
import { DataError } from "./errors.ts";
import { exampleReader, type Columns, type Example, type ToExample } from "./examples.ts";
import { formatOf, readRecords, type TextFile } from "./records.ts";

export interface Dataset {
  readonly examples: readonly EncodedExample[];
  /** One of them as text: to show what the model makes of its prompt. */
  readonly sample: Example;
  /** Examples whose completion was cut off at the end. */
  readonly truncated: number;
  /** Lines of examples that were left out, because their prompt leaves no room for a completion. */
  readonly skipped: readonly number[];
}

export interface DatasetOptions extends Columns {
  readonly maxLength: number;
  readonly separator?: string;
  /** At most so many examples. Default: all. */
  readonly limit?: number;
}

/** Reads and encodes all examples of a file. Throws DataError with the line of what is wrong. */
export async function loadDataset(
  file: TextFile,
  tokenizer: TextEncoderLike,
  options: DatasetOptions,
): Promise<Dataset> {
  const examples: EncodedExample[] = [];
  const skipped: number[] = [];
  let toExample: ToExample | null = null;
  let sample: Example | null = null;
  for await (const record of readRecords(file, formatOf(file.name))) {
    toExample ??= exampleReader(file.name, record, options);
    const example = toExample(record);
    const encoded = encodeExample(example, tokenizer, options);
    if (encoded === null) {
      skipped.push(example.line);
      continue;
    }
    sample ??= example;
    examples.push(encoded);
    if (examples.length === options.limit) break;
  }
  if (sample === null) {
    const why =
      skipped.length > 0
        ? `all ${skipped.length} prompts are longer than ${options.maxLength} tokens; give a larger sequence length`
        : "there are no examples in it";
    throw new DataError(file.name, null, why);
  }
  const truncated = examples.filter((example) => example.truncated).length;
  return { examples, sample, truncated, skipped };
}

/** The batch of each step: shuffled anew each epoch, the same for the same seed. */
export function batchesOf(
  examples: readonly EncodedExample[],
  options: {
    readonly batch: number;
    readonly maxLength: number;
    readonly seed: number;
    readonly padId: number;
  },
): (step: number) => Batch {
  const order = exampleOrder(examples.length, options.seed);
  return (step) => {
    const rows = Array.from({ length: options.batch }, (_, i) => examples[order(step * options.batch + i)]!);
    return stackBatch(rows, options.maxLength, options.padId);
  };
}
