/** LoRA with a trained bias on B (PEFT's `lora_bias`): z = W x + s (B A x + c). Merging it needs a module with a bias. */
import { init } from "../init.ts";
import { defineMethod, scaled, type CommonOptions, type PlainMethod } from "../method.ts";
import type { Named } from "./recipe.ts";

export function loraBias(options: CommonOptions, named: Named): PlainMethod<"A" | "B" | "c"> {
  return defineMethod({
    ...options,
    ...named,
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
