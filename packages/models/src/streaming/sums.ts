/** Sums of gradients over the parts of a model, in the order in which the gradient of the whole graph adds them. */
import { BYTES, computeType, product, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";

type Update = readonly [nn.Parameter, Tensor];

export class GradientSums {
  readonly #memory: Map<nn.Parameter, nn.Parameter> = new Map<nn.Parameter, nn.Parameter>();
  readonly #begun: Set<nn.Parameter> = new Set<nn.Parameter>();

  /** Begins new sums; the memory of the old ones is used again. */
  begin(): void {
    this.#begun.clear();
  }

  /** The updates that add gradients, given in the order of `parameters`; null where there is none. */
  updates(parameters: readonly nn.Parameter[], gradients: readonly (Tensor | null)[]): Update[] {
    return parameters.flatMap((p, i): Update[] => {
      const g = gradients[i];
      if (!g) return [];
      const sum = this.#of(p);
      return [[sum, sum.add(g)]];
    });
  }

  #of(p: nn.Parameter): nn.Parameter {
    const sum = this.#memory.get(p) ?? allocate(p);
    this.#memory.set(p, sum);
    // -0 + g is g for every g, 0 and -0 included: one program serves the first term of a sum and all others.
    if (!this.#begun.has(p)) sum.set(new Float32Array(p.size).fill(-0));
    this.#begun.add(p);
    return sum;
  }

  /** The sums, by parameter; their memory is overwritten once others are begun. */
  result(): Map<nn.Parameter, nn.Parameter> {
    return new Map([...this.#begun].map((p) => [p, this.#memory.get(p)!]));
  }

  free(): void {
    for (const { storage } of this.#memory.values()) storage.buffer.free();
    this.#memory.clear();
    this.#begun.clear();
  }
}

function allocate(p: nn.Parameter): nn.Parameter {
  const dtype = computeType(p.dtype);
  const storage = p.device!.allocate(product(p.shape) * BYTES[dtype], `the gradient of ${p.name}`);
  return new nn.Parameter(storage, p.shape, dtype, p.device!);
}
