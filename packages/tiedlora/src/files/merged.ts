/** Files of a model with its adapters merged in. Each weight is computed when it is written, so there is never a second model. */
import type { Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { adaptersOf } from "../adapter/adapter.ts";
import { storedView } from "../adapter/modules.ts";
import {
  type ModelFileOptions,
  type Replacements,
  type SavableModel,
  streamedModel,
  withWeights,
} from "../model.ts";
import type { OutputFile } from "../output-file.ts";
import { checkUntied, type MergedTensors, mergedTensors, layersByModule } from "../adapter/merge.ts";

/**
 * The files of `model` with its active adapters merged in; the model itself is unchanged. Sums are computed in f32 and rounded
 * once, to the stored type. Throws if an adapted weight is also used by another module (see `untie`); writing the files rejects if
 * a value is not finite.
 */
export function mergedModelFiles(model: SavableModel, options: ModelFileOptions = {}): OutputFile[] {
  return model.files({ ...options, replace: mergedWeights(model) });
}

/** The weights and biases of `model` that its active adapters change, with the adapters merged in, by path; computed on call. */
export function mergedWeights(model: nn.Module): Replacements {
  const set = adaptersOf(model);
  const acting = set.active.filter((name) => !set.mergedNames.includes(name)).map((name) => set.get(name));
  const replace = new Map<string, () => Promise<Tensor>>();
  for (const [host, layers] of layersByModule(acting)) {
    const { path } = layers[0]!.member;
    checkUntied(`${path}.weight`, set.ownParameters());
    const merged = (pick: (tensors: MergedTensors) => Tensor) => (): Promise<Tensor> =>
      withWeights(model, [host.weight], async () => {
        const tensor = pick(await mergedTensors(host, layers));
        if (streamedModel(model)) await tensor.data(); // computed while the weight is in memory
        return tensor;
      });
    replace.set(
      `${path}.weight`,
      merged(({ weight }) => storedView(host, weight)),
    );
    if (
      layers.some(({ formulas }) => formulas.lowRank === undefined) &&
      host instanceof nn.Linear &&
      host.bias !== null
    ) {
      const { bias } = host;
      replace.set(
        `${path}.bias`,
        merged((tensors) => tensors.bias ?? bias),
      );
    }
  }
  return replace;
}
