/** Linear layers and their slot for an adapter. */
import type { Parameter, Tensor } from "@tiedlora/core";
import { checkName, checkTensors, checkWhole } from "@tiedlora/core/extend";
import { checkInit, checkParameter, type InitOptions, uniformParameter } from "./init.ts";
import type { GraphState } from "./adapters.ts";
import { Module } from "./module.ts";

/** Changes the output of a layer without changing the layer. Not a Module: its parameters are not among the layer's parameters. */
export interface LinearAdapter {
  /** Returns the new output [..., out] from the layer's input x [..., in] and its own output y [..., out]. */
  apply(x: Tensor, y: Tensor, layer: Linear): Tensor;
  /**
   * For a layer that makes keys or values of an attention: those that every query sees beside those of its tokens, [n, width]; for a
   * layer that makes queries too, keys and then values in one row. Null or left out: there are none.
   */
  prefix?(): Tensor | null;
  /** See `GraphState`. */
  state?(): GraphState;
}

/** How a weight is stored: PyTorch's Linear [out, in], or GPT-2's Conv1D [in, out]. */
export type LinearLayout = "outIn" | "inOut";

/** y = W x + b over the last axis. */
export class Linear extends Module {
  /** [out, in], or [in, out] for the layout "inOut". */
  weight: Parameter;
  /** [out], or null. */
  bias: Parameter | null;
  /** How the weight is stored. */
  readonly layout: LinearLayout;
  /** The adapter that changes the output, or null. */
  adapter: LinearAdapter | null = null;

  /** A layer around existing parameters, e.g. loaded or tied ones. */
  constructor(weight: Parameter, bias: Parameter | null = null, layout: LinearLayout = "outIn") {
    super();
    this.layout = checkName("Linear: layout", layout, ["outIn", "inOut"]);
    this.weight = checkParameter("Linear: the weight", weight, [null, null]);
    this.bias = bias && checkParameter("Linear: the bias", bias, [this.outFeatures]);
  }

  /** A new layer; initial values as in PyTorch: weight and bias U(-1/√in, 1/√in). */
  static init(
    inFeatures: number,
    outFeatures: number,
    options: InitOptions & { readonly bias?: boolean },
  ): Linear {
    checkWhole("Linear: inFeatures", inFeatures, 1);
    checkWhole("Linear: outFeatures", outFeatures, 1);
    checkInit("Linear", options);
    const bound = 1 / Math.sqrt(inFeatures);
    const fold = (name: string): InitOptions => ({ ...options, key: options.key.fold(name) });
    const weight = uniformParameter([outFeatures, inFeatures], bound, fold("weight"), "weight");
    return new Linear(
      weight,
      options.bias === false ? null : uniformParameter([outFeatures], bound, fold("bias"), "bias"),
    );
  }

  /** The length of the last axis of the input of `forward`. */
  get inFeatures(): number {
    return this.weight.shape[this.layout === "outIn" ? 1 : 0]!;
  }
  /** The length of the last axis of the output of `forward`. */
  get outFeatures(): number {
    return this.weight.shape[this.layout === "outIn" ? 0 : 1]!;
  }

  /** x [..., in] -> [..., out]. */
  forward(x: Tensor): Tensor {
    checkTensors("Linear", [x]);
    const product = x.matmul(this.layout === "outIn" ? this.weight.transpose() : this.weight);
    const y = this.bias ? product.add(this.bias) : product;
    return this.adapter ? this.adapter.apply(x, y, this) : y;
  }
}
