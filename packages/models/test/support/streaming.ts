/** Gradients of a model with small trained parameters in its layers, in memory as a whole and layer by layer. */
import { gradOrNull, key, realize } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import type { Batch, Decoder } from "../../src/decoder.ts";

export interface Found {
  readonly loss: number;
  readonly gradients: readonly (Float32Array | null)[];
}

/** What is trained: as in Tied-LoRA, A and B for all layers and two vectors in each; and all norms. */
function trainedOf(model: Decoder): nn.Parameter[] {
  const { device } = model;
  model.freeze();
  const shared = new Map<string, nn.Parameter>();
  const own: nn.Parameter[] = [];
  const normal = (name: string, shape: number[]): nn.Parameter =>
    nn.normalParameter(shape, 0.3, { device, key: key(2).fold(name) }, name);
  const tied = (name: string, shape: number[]): nn.Parameter => {
    const found = shared.get(name) ?? normal(name, shape);
    shared.set(name, found);
    return found;
  };
  for (const [path, linear] of model.linears()) {
    if (path === "lm_head") continue;
    const { inFeatures, outFeatures } = linear;
    const A = tied(`A of ${inFeatures}`, [3, inFeatures]);
    const B = tied(`B of ${outFeatures}`, [outFeatures, 3]);
    const [u, v] = [normal(`${path}.u`, [3]), normal(`${path}.v`, [outFeatures])];
    own.push(u, v);
    linear.adapter = {
      apply: (x, y) => y.add(x.matmul(A.transpose()).mul(u).matmul(B.transpose()).mul(v)),
    };
  }
  const norms = [...model.stateDict()].filter(([path]) => /norm|ln_/.test(path)).map(([, p]) => p);
  for (const norm of norms) norm.requiresGrad = true;
  return [...shared.values(), ...own, ...norms];
}

const known = new WeakMap<Decoder, nn.Parameter[]>();
const trained = (model: Decoder): nn.Parameter[] => {
  const found = known.get(model) ?? trainedOf(model);
  known.set(model, found);
  return found;
};

export async function residentGradient(model: Decoder, batch: Batch): Promise<Found> {
  model.checkpointing = true; // which adds the gradients of a layer first, and then those of the layers
  const parameters = trained(model);
  const loss = model.loss(batch);
  const found = gradOrNull(loss, parameters);
  realize(loss, ...found.filter((g) => g !== null)); // as one program
  const gradients = await Promise.all(found.map(async (g) => g && new Float32Array(await g.data())));
  return { loss: await loss.item(), gradients };
}

export async function streamedGradient(model: Decoder, batch: Batch): Promise<Found> {
  const parameters = trained(model);
  const { loss, gradients } = await model.streamed!.gradients(batch, parameters);
  const values = parameters.map(async (p) => {
    const found = gradients.get(p);
    return found ? new Float32Array(await found.data()) : null;
  });
  return { loss, gradients: await Promise.all(values) };
}
