/** The feed-forward blocks of transformers, and dropout. */
import { type Key, random, type Tensor } from "@tiedlora/core";
import { checkKey, checkName, checkNumber, checkTensors, refuse } from "@tiedlora/core/extend";
import { checkInit, type InitOptions } from "./init.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";

/** The names of the activation functions. */
export type Activation = "relu" | "gelu" | "gelu_tanh" | "silu" | "tanh" | "sigmoid";

/** The activation functions by name; "gelu" is exact, "gelu_tanh" is GPT-2's approximation. */
export const ACTIVATIONS: { readonly [A in Activation]: (x: Tensor) => Tensor } = {
  relu: (x) => x.relu(),
  gelu: (x) => x.gelu(),
  gelu_tanh: (x) => x.gelu("tanh"),
  silu: (x) => x.silu(),
  tanh: (x) => x.tanh(),
  sigmoid: (x) => x.sigmoid(),
};

/** Settings of a new feed-forward block. */
export interface MLPOptions extends InitOptions {
  /** Default "gelu" for `MLP`, "silu" for `GatedMLP`. */
  readonly activation?: Activation;
  /** Whether the layers have biases. Default true. */
  readonly bias?: boolean;
}

const checkActivation = (what: string, name: Activation): Activation =>
  checkName(`${what}: activation`, name, Object.keys(ACTIVATIONS) as Activation[]);

function checkLinear(what: string, layer: Linear): Linear {
  return layer instanceof Linear ? layer : refuse(what, layer, "Linear", "one, e.g. by Linear.init");
}

/** down(activation(up(x))). */
export class MLP extends Module {
  /** [dim] -> [hidden]. */
  readonly up: Linear;
  /** [hidden] -> [dim]. */
  readonly down: Linear;
  /** The activation between `up` and `down`. */
  readonly activation: Activation;

  constructor(up: Linear, down: Linear, activation: Activation) {
    super();
    this.up = checkLinear("MLP: up", up);
    this.down = checkLinear("MLP: down", down);
    this.activation = checkActivation("MLP", activation);
  }

  /** New layers, as `Linear.init` makes them. */
  static init(dim: number, hidden: number, options: MLPOptions): MLP {
    checkInit("MLP", options);
    const up = Linear.init(dim, hidden, { ...options, key: options.key.fold("up") });
    const down = Linear.init(hidden, dim, { ...options, key: options.key.fold("down") });
    const { activation = "gelu" } = options;
    return new MLP(up, down, activation);
  }

  /** x [..., dim] -> [..., dim]. */
  forward(x: Tensor): Tensor {
    return this.down.forward(ACTIVATIONS[this.activation](this.up.forward(x)));
  }
}

/** down(activation(gate(x)) · up(x)): SwiGLU with "silu" (Shazeer 2020). */
export class GatedMLP extends Module {
  /** [dim] -> [hidden]; its output goes through the activation. */
  readonly gate: Linear;
  /** [dim] -> [hidden]; its output is multiplied by the activated gate. */
  readonly up: Linear;
  /** [hidden] -> [dim]. */
  readonly down: Linear;
  /** The activation of the gate. */
  readonly activation: Activation;

  constructor(gate: Linear, up: Linear, down: Linear, activation: Activation = "silu") {
    super();
    this.gate = checkLinear("GatedMLP: gate", gate);
    this.up = checkLinear("GatedMLP: up", up);
    this.down = checkLinear("GatedMLP: down", down);
    this.activation = checkActivation("GatedMLP", activation);
  }

  /** New layers, as `Linear.init` makes them. */
  static init(dim: number, hidden: number, options: MLPOptions): GatedMLP {
    checkInit("GatedMLP", options);
    const linear = (name: string, i: number, o: number): Linear =>
      Linear.init(i, o, { ...options, key: options.key.fold(name) });
    const down = linear("down", hidden, dim);
    return new GatedMLP(linear("gate", dim, hidden), linear("up", dim, hidden), down, options.activation);
  }

  /** x [..., dim] -> [..., dim]. */
  forward(x: Tensor): Tensor {
    return this.down.forward(ACTIVATIONS[this.activation](this.gate.forward(x)).mul(this.up.forward(x)));
  }
}

/** Sets each element to 0 with probability `p` in [0, 1), and scales the rest by 1/(1-p). The same key drops the same elements. */
export function dropout(x: Tensor, p: number, key: Key): Tensor {
  checkTensors("dropout", [x]);
  checkNumber("dropout", p, "probability in 0 … 1 (1 excluded)", p >= 0 && p < 1);
  if (p === 0) return x;
  const kept = random.bernoulli(checkKey("dropout", key), x.shape, 1 - p).cast("f32");
  return x.mul(kept.mul(1 / (1 - p)));
}

/** Dropout while training; give a new key in every call. */
export class Dropout extends Module {
  /** The probability with which an element becomes 0. */
  readonly p: number;

  constructor(p: number) {
    super();
    this.p = checkNumber("Dropout", p, "probability in 0 … 1 (1 excluded)", p >= 0 && p < 1);
  }

  /** `dropout(x, p, key)` while `training`; x itself otherwise. */
  forward(x: Tensor, key: Key): Tensor {
    return this.training ? dropout(x, this.p, key) : x;
  }
}
