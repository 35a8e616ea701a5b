/** Writes a problem as one file of numbers with a description, for a peer that is not written in JavaScript. */
import { writeFileSync } from "node:fs";
import {
  ADAMW,
  adapterInit,
  batchSizes,
  gptInit,
  type Init,
  initialValues,
  LORA,
  LSTM,
  lstmBatch,
  lstmInit,
  mlpBatch,
  mlpInit,
  sizeOf,
  tokens,
  type Work,
} from "../problems.ts";

interface Entry {
  readonly dtype: "f32" | "i32";
  readonly shape: readonly number[];
  /** Bytes from the start of the file. */
  readonly offset: number;
}

/** The description that torch_peer.py receives. */
export interface Description {
  readonly data: string;
  readonly kind: Work["kind"];
  readonly size?: object;
  readonly adapted: boolean;
  readonly scale: number;
  readonly adam: { lr: number; betas: readonly number[]; eps: number; weightDecay: number };
  readonly weights: readonly (Entry & { name: string; trained: boolean })[];
  readonly batches: readonly { x: Entry; y: Entry }[];
}

/** Writes the initial values and batches of `work` to `path`, and returns their description. */
export function writeProblem(work: Work, path: string): Description {
  const parts: (Float32Array | Int32Array)[] = [];
  let bytes = 0;
  const entry = (values: Float32Array | Int32Array, shape: readonly number[]): Entry => {
    const offset = bytes;
    parts.push(values);
    bytes += values.byteLength;
    return { dtype: values instanceof Float32Array ? "f32" : "i32", shape, offset };
  };
  const weights = (inits: readonly Init[], trained: readonly boolean[] | boolean): Description["weights"] =>
    inits.map((init, i) => ({
      name: init[0],
      trained: typeof trained === "boolean" ? trained : trained[i]!,
      ...entry(initialValues(init, i), init[1]),
    }));
  const description = work.kind === "mlp" ? mlp() : work.kind === "lstm" ? lstm(work) : gpt(work);
  writeFileSync(path, Buffer.concat(parts.map((part) => new Uint8Array(part.buffer)))); // each array spans its whole buffer
  return { ...description, data: path, kind: work.kind, scale: LORA.alpha / LORA.rank };

  function mlp(): Omit<Description, "data" | "kind" | "scale"> {
    const batches = Array.from({ length: 16 }, (_, i) => mlpBatch(i));
    return {
      adapted: false,
      adam: { ...ADAMW, betas: [0.9, 0.999], weightDecay: 0 },
      weights: weights(mlpInit(), true),
      batches: batches.map(({ x, y }) => ({ x: entry(x, [128, 784]), y: entry(y, [128]) })),
    };
  }

  function lstm({ length }: Work & { kind: "lstm" }): Omit<Description, "data" | "kind" | "scale"> {
    const batches = Array.from({ length: 4 }, (_, i) => lstmBatch(i, length));
    const { batch, width } = LSTM;
    return {
      adapted: false,
      adam: { ...ADAMW, betas: [0.9, 0.999], weightDecay: 0 },
      weights: weights(lstmInit(), true),
      batches: batches.map(({ x, y }) => ({ x: entry(x, [length, batch, width]), y: entry(y, [batch]) })),
    };
  }

  function gpt(of: Work & { kind: "gpt" }): Omit<Description, "data" | "kind" | "scale"> {
    const [size, { method }] = [sizeOf(of.size), of];
    const factors = adapterInit(size, method);
    const full = method === "full";
    const batches = batchSizes(of).map((one, i) => tokens(i, one));
    return {
      size,
      adapted: !full,
      adam: full ? ADAMW : { ...ADAMW, lr: LORA.lr, weightDecay: 0 },
      weights: [
        ...weights(gptInit(size), full),
        ...weights(factors.map(({ init }) => init), factors.map((factor) => factor.trained)), // prettier-ignore
      ],
      batches: batches.map(({ x, y }) => ({ x: entry(x, [x.length]), y: entry(y, [y.length]) })),
    };
  }
}
