/** LoRA with a trained bias on B (PEFT's `lora_bias`): z = W x + s (B A x + c). Merging it needs a module with a bias. */
import { init } from "../init.ts";
import { defineMethod, scaled, type CommonOptions, type PlainMethod } from "../method.ts";
import { LEARNING_RATES } from "./rates.ts";
import { recipe } from "./recipe.ts";

export function loraBias(options: CommonOptions = {}): PlainMethod<"A" | "B" | "c"> {
  return defineMethod({
    ...options,
    name: "lora-bias",
    learningRate: LEARNING_RATES["lora-bias"],
    recipe: recipe("lora-bias", options),
    factors: {
      A: { shape: ["rank", "in"], init: init.normal() },
      B: { shape: ["out", "rank"], init: init.zeros() },
      c: { shape: ["out"], init: init.zeros() },
    },
    product: ["A", "B"],
    forward: ({ A, B, c }, call) => {
      const hidden = call.shared(() => call.x.matmul(A.transpose()));
      return call.y.add(scaled(hidden.matmul(B.transpose()).add(c), call.scale));
    },
  });
}
