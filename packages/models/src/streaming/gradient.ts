/**
 * The gradient of a loss, one layer at a time. On the way forward each layer's input is kept; on the way back each layer is
 * computed again from its input, and differentiated. That is what checkpointing does within one program, and gives its bits.
 */
import { assign, gradOrNull, type Tensor } from "@tiedlora/core";
import type * as nn from "@tiedlora/nn";
import type { Pass } from "../pass.ts";
import type { Registers } from "./registers.ts";
import type { Slots } from "./slots.ts";
import type { GradientSums } from "./sums.ts";

export interface Workspace {
  readonly slots: Slots;
  readonly registers: Registers;
  readonly sums: GradientSums;
}

/** The loss that a pass ends in, and further values that are computed with it. */
export interface Ending {
  readonly loss: Tensor;
  readonly also: readonly Tensor[];
}

type LossPass = Omit<Pass, "finish"> & { readonly finish: (x: Tensor) => Ending };

/** Resolves once the program that last wrote `register` has run. */
export function written(register: nn.Parameter): Promise<unknown> {
  return register.storage.buffer.read(0, 4);
}

/** The loss of a pass; adds its gradients with respect to `trained` to new sums. */
export async function streamGradient(
  pass: LossPass,
  trained: readonly nn.Parameter[],
  { slots, registers, sums }: Workspace,
): Promise<number> {
  const { layers } = pass;
  const depth = layers.length;
  const first = pass.start();
  const input = (i: number): nn.Parameter => registers.of(`the input of layer ${i}`, first.shape);
  const cotangent = (): nn.Parameter => registers.of("the gradient of a layer's output", first.shape);
  const lowest = lowestTrained(pass, first, input(0), trained);
  if (lowest === null) throw new RangeError(noGradient(trained));
  sums.begin();
  assign([[input(0), first]]);

  const forward = (i: number): Promise<unknown> => {
    const y = input(i + 1);
    assign([[y, layers[i]!(input(i))]]);
    return written(y);
  };
  const head = (): Tensor => {
    const x = input(depth);
    const { loss, also } = pass.finish(x);
    const [toInput, ...rest] = gradOrNull(loss, [x, ...trained]);
    const updates = [...(toInput ? [[cotangent(), toInput] as const] : []), ...sums.updates(trained, rest)];
    assign(updates, [loss, ...also]);
    return loss;
  };
  const backward = (i: number): Promise<unknown> => {
    const x = input(i);
    const g = cotangent();
    const [toInput, ...rest] = gradOrNull(layers[i]!(x).mul(g).sum(), [x, ...trained]);
    assign([[g, toInput!], ...sums.updates(trained, rest)]);
    return written(g);
  };

  const up = Array.from({ length: depth }, (_, i) => i);
  const down = up.filter((i) => i >= lowest).reverse();
  let loss: Tensor | null = null;
  await slots.visit([...up, ...down], async (layer, turn) => {
    if (turn < depth) return forward(layer);
    loss ??= head();
    return backward(layer);
  });
  loss ??= head();
  if (lowest < 0) {
    const rest = gradOrNull(pass.start().mul(cotangent()).sum(), trained);
    assign(sums.updates(trained, rest));
  }
  return loss.item();
}

/** The first layer, from the input on, that depends on `trained`: -1 for the embedding, the depth for the head; null for none. */
function lowestTrained(
  { layers, finish }: LossPass,
  start: Tensor,
  x: nn.Parameter,
  trained: readonly nn.Parameter[],
): number | null {
  const depends = (y: Tensor): boolean => gradOrNull(y.sum(), trained).some((g) => g !== null);
  if (depends(start)) return -1;
  const found = layers.findIndex((layer) => depends(layer(x)));
  if (found >= 0) return found;
  return depends(finish(x).loss) ? layers.length : null;
}

function noGradient(trained: readonly nn.Parameter[]): string {
  const names = trained.slice(0, 3).map(({ name }) => name);
  return (
    `the loss depends on none of the ${trained.length} trained parameters (${names.join(", ")}` +
    `${trained.length > 3 ? ", …" : ""}), so nothing would be trained`
  );
}
