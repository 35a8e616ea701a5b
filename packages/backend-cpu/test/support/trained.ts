/** A small training with batches of several sizes; as a program, with a cache in the folder that is its argument. */
import { argv } from "node:process";
import { cpu, CpuBackend } from "@tiedlora/backend-cpu";
import { type Device, key } from "@tiedlora/core";
import { normalArray } from "@tiedlora/kernels/random";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

/** The rows of the batch of each step. */
export const TRAINING: readonly number[] = [5, 6];

/** The loss of each step. */
export async function trained(device: Device, rows: readonly number[]): Promise<number[]> {
  const layer = nn.Linear.init(24, 12, { device, key: key(1) });
  const optimizer = optim.adamW(layer.parameters(), { lr: 0.01 });
  const losses: number[] = [];
  for (const [i, n] of rows.entries()) {
    const x = device.tensor(normalArray(key(i), n * 24), { shape: [n, 24] });
    const h = layer.forward(x);
    // -Infinity and -0 are constants that JSON does not have
    const loss = h.maximum(-Infinity).mul(-0).add(h).softmax(-1).square().mean();
    optimizer.step(loss);
    losses.push(await loss.item());
  }
  return losses;
}

if (argv[1] === import.meta.filename) {
  const device = await cpu({ threads: 1, cache: argv[2]! });
  const losses = await trained(device, TRAINING);
  const { backend } = device;
  if (!(backend instanceof CpuBackend)) throw new Error("cpu() gave another backend");
  console.log(JSON.stringify({ losses, counts: backend.cache?.counts }));
  device.close();
}
