/** The whole update of one module by one adapter, in the form that combining needs. */
import type { Tensor } from "@tiedlora/core";
import type { AdapterLayer } from "../adapter/layer.ts";
import { mergedTensors } from "../adapter/merge.ts";
import { type AdaptableModule, weightView } from "../adapter/modules.ts";
import { type LowRank, scaled } from "../method.ts";

/** One adapter's update of a module, times its weight in a sum. */
export interface Part {
  readonly host: AdaptableModule;
  readonly layer: AdapterLayer;
  readonly weight: number;
}

/** The update as a product B A, the scale in B. Throws if the method has no such form. */
export function productOf({ layer }: Part): LowRank {
  const low = layer.lowRank();
  if (low !== null) return { A: low.A, B: scaled(low.B, layer.scale) };
  const { method, name } = layer.owner;
  throw new Error(
    `combine: ${method.name} of "${name}" has no update of the form B A; give a way that approximates it, e.g. how: "svd", with a rank`,
  );
}

/** The whole matrix ΔW [out, in], of any method. Throws if the update is not linear, or changes a bias: no matrix holds it. */
export async function matrixOf(part: Part): Promise<Tensor> {
  const { host, layer } = part;
  if (layer.lowRank() !== null) {
    const { A, B } = productOf(part);
    return B.matmul(A);
  }
  const { weight, bias } = await mergedTensors(host, [layer]);
  if (bias !== null)
    throw new Error(
      `combine: ${layer.owner.method.name} of "${layer.owner.name}" changes the bias of ${layer.member.path}, which LoRA has no place for`,
    );
  return weight.sub(weightView(host).cast("f32"));
}
