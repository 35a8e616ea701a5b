/** A gated recurrent network over windows of a longer input, for tests of backends that run long loops in parts. */
import { concat, type Device, grad, type Tensor } from "@tiedlora/core";

const numbers = (n: number, seed: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed) / 3);

/** The loss of a gated recurrent network of 8 numbers, and its gradients by the weights, of `length` steps from row `from` of the input on. */
export async function gatedLoop(device: Device, length: number, from: number): Promise<Float32Array> {
  const tensor = (shape: readonly number[], seed: number): Tensor =>
    device.tensor(numbers(shape.reduce((a, b) => a * b), seed), { shape }); // prettier-ignore
  const x = tensor([length + from, 4, 8], 1);
  const [wx, wh, b] = [tensor([8, 16], 2), tensor([8, 16], 3), tensor([16], 4)] as const;
  let h = tensor([4, 8], 5);
  for (let t = 0; t < length; t++) {
    const at = x.narrow(0, t + from, 1).reshape([4, 8]);
    const [gate, value] = at.matmul(wx).add(h.matmul(wh)).add(b).split(8, 1) as [Tensor, Tensor];
    h = h.add(gate.sigmoid().mul(value.tanh().sub(h)));
  }
  const loss = h.square().mean();
  const all = [loss, ...grad(loss, [wx, wh, b])].map((one) => one.reshape([one.size]));
  return (await concat(all).data()) as Float32Array;
}
