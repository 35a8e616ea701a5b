/** A device that records the programs it is given, and small models, for tests that count programs and steps. */
import { type Backend, Device, type DeviceOptions, type Executable, type Program } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { key, type LibraryCall, Parameter, ReferenceBackend, type Tensor } from "@tiedlora/core";

/** The reference backend, which keeps the programs it has compiled. */
export class Recorder extends ReferenceBackend {
  readonly programs: Program[] = [];
  override readonly caps: Backend["caps"];
  readonly #accelerated: (call: LibraryCall) => boolean;

  constructor(maxOperands = 64, accelerated: (call: LibraryCall) => boolean = () => true) {
    super();
    this.caps = { ...new ReferenceBackend().caps, maxOperands };
    this.#accelerated = accelerated;
  }
  override accelerates(call: LibraryCall): boolean {
    return this.#accelerated(call);
  }
  override compile(program: Program): Executable {
    this.programs.push(program);
    return super.compile(program);
  }
  /** The program compiled last. */
  get last(): Program {
    return this.programs.at(-1)!;
  }
}

/** A device on a recorder. */
export function recording(
  options: DeviceOptions = {},
  recorder = new Recorder(),
): { device: Device; recorder: Recorder } {
  return { device: new Device(recorder, options), recorder };
}

/** The epilogues and terms of a program's matmuls. */
export function matmuls(program: Program): { terms: number; epilogue: boolean }[] {
  return program.steps.flatMap((step) =>
    step.type === "library" && step.name === "matmul"
      ? [{ terms: step.params.k.length, epilogue: step.params.epilogue !== undefined }]
      : [],
  );
}

/** How many steps are loop kernels. */
export const loops = (program: Program): number =>
  program.steps.filter((step) => step.type === "loop").length;

/** A parameter of `shape` with small values. */
export function parameter(device: Device, shape: readonly number[], name = "p"): Parameter {
  const n = shape.reduce((a, b) => a * b, 1);
  return Parameter.from(
    device,
    Float32Array.from({ length: n }, (_, i) => Math.sin(i + n) / 4),
    shape,
    "f32",
    name,
  );
}

/** A small transformer: embedding, blocks of attention and MLP, tied output. */
export class TinyGpt extends nn.Module {
  readonly embedding: nn.Embedding;
  readonly blocks: {
    attention: nn.CausalSelfAttention;
    mlp: nn.MLP;
    norm1: nn.LayerNorm;
    norm2: nn.LayerNorm;
  }[];
  readonly modules: nn.Module[];

  constructor(
    device: Device,
    { layers, dim, heads, vocab }: { layers: number; dim: number; heads: number; vocab: number },
  ) {
    super();
    this.embedding = nn.Embedding.init(vocab, dim, { device, key: key(1), std: 0.1 });
    this.blocks = Array.from({ length: layers }, (_, l) => {
      const options = { device, key: key(l + 2) };
      return {
        attention: new nn.CausalSelfAttention(dim, heads, options),
        mlp: nn.MLP.init(dim, 4 * dim, { ...options, activation: "gelu_tanh" }),
        norm1: nn.LayerNorm.init(dim, { device }),
        norm2: nn.LayerNorm.init(dim, { device }),
      };
    });
    this.modules = this.blocks.flatMap((b) => [b.norm1, b.attention, b.norm2, b.mlp]);
  }

  loss(ids: Tensor, targets: Tensor): Tensor {
    let h = this.embedding.forward(ids);
    for (const { attention, mlp, norm1, norm2 } of this.blocks) {
      h = h.add(attention.forward(norm1.forward(h)));
      h = h.add(mlp.forward(norm2.forward(h)));
    }
    return nn.crossEntropy(h.matmul(this.embedding.weight.transpose()), targets);
  }
}
