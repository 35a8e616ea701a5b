/** Greedy generation of an exported decoder with ONNX Runtime for Node, whose cache of keys and values is written in place. */
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import protobuf from "protobufjs";
import { onnxModel, paddedWidth } from "./decoder.ts";

/**
 * @param {import("@tiedlora/models").Decoder} model
 * @param {number} slots the most tokens of prompt and answer
 * @param {number} threads
 * @returns {Promise<{ generate: (prompt: number[], tokens: number) => Promise<number[]>, release: () => Promise<void> }>}
 */
export async function onnxGenerator(model, slots, threads) {
  const { layers, kvHeads, headDim, modelType } = model.config;
  const schema = await protobuf.load(join(import.meta.dirname, "onnx.proto"));
  const bytes = schema
    .lookupType("onnx.ModelProto")
    .encode(await onnxModel(model, slots))
    .finish();
  const options = { intraOpNumThreads: threads, graphOptimizationLevel: "all" };
  const session = await InferenceSession.create(bytes, options);
  const names = Array.from({ length: layers }, (_, i) => [`key_${i}`, `value_${i}`]).flat();
  const shape = [1, kvHeads, slots, paddedWidth(headDim)];
  const size = shape.reduce((a, b) => a * b);
  const caches = names.map(() => new Tensor("float32", new Float32Array(size), shape));
  const past = Object.fromEntries(names.map((name, i) => [`past_${name}`, caches[i]]));
  const written = Object.fromEntries(names.map((name, i) => [`present_${name}`, caches[i]]));

  const step = async (ids, seen) => {
    const keys = seen + ids.length;
    const row = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const feeds = {
      ids: row(ids),
      ...(modelType === "gpt2" && { positions: row(ids.map((_, i) => seen + i)) }),
      last: new Tensor("int32", Int32Array.of(keys - 1), [1]),
      keys: new Tensor("int32", Int32Array.of(keys), []),
      ...past,
    };
    const { next } = await session.run(feeds, { ...written, next: null });
    return Number(next.data[0]);
  };

  return {
    async generate(prompt, tokens) {
      const generated = [await step(prompt, 0)];
      while (generated.length < tokens)
        generated.push(await step([generated.at(-1)], prompt.length + generated.length - 1));
      return generated;
    },
    release: () => session.release(),
  };
}
