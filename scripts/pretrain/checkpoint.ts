/** Checkpoints of a pretraining run: weights, optimizer state and position in the corpus, in one file. */
import { decodeF32, encodeTensor, openSafetensors, serialize, type TensorToWrite } from "@tiedlora/core";
import type * as optim from "@tiedlora/nn/optim";
import { fileSource, writeFileAtomic } from "@tiedlora/core/node";
import type { Decoder } from "@tiedlora/models";
import { stat } from "node:fs/promises";

export interface Run {
  readonly model: Decoder;
  readonly optimizer: optim.AdamW;
}

const f32 = (name: string, values: Float32Array, shape: readonly number[]): TensorToWrite => ({
  name,
  dtype: "F32",
  shape,
  bytes: () => encodeTensor("f32", values),
});

/** Replaces the file atomically, so that a run that is killed leaves the previous checkpoint intact. */
export async function saveCheckpoint(
  path: string,
  { model, optimizer }: Run,
  position: number,
): Promise<void> {
  const tensors: TensorToWrite[] = [];
  for (const [name, p] of model.stateDict()) {
    tensors.push(f32(`model.${name}`, (await p.data()) as Float32Array, p.shape));
  }
  const state = await optimizer.state();
  for (const [name, { shape, values }] of state.tensors)
    tensors.push(f32(`optimizer.${name}`, values as Float32Array, shape));
  const metadata: [string, string][] = [
    ["step", String(state.step)],
    ["position", String(position)],
  ];
  await writeFileAtomic(path, await serialize(tensors, metadata));
}

/** Restores a checkpoint, and returns the position in the corpus; null if there is no checkpoint. */
export async function loadCheckpoint(path: string, { model, optimizer }: Run): Promise<number | null> {
  if ((await stat(path).catch(() => null)) === null) return null;
  const source = await fileSource(path);
  try {
    const file = await openSafetensors(source);
    const values = async (name: string): Promise<Float32Array> =>
      decodeF32(await file.read(name), path, name);
    for (const [name, p] of model.stateDict()) p.set(await values(`model.${name}`));
    const tensors = new Map<string, optim.StateValues>();
    for (const [name, { shape }] of file.entries) {
      if (name.startsWith("optimizer."))
        tensors.set(name.slice("optimizer.".length), { shape, values: await values(name) });
    }
    optimizer.load({ step: Number(file.metadata.get("step")), tensors });
    return Number(file.metadata.get("position"));
  } finally {
    await source.close?.();
  }
}
