/** How a checkpoint is quantized, by its config.json: not at all, by bitsandbytes to NF4, or by MLX. */
import type { Fields } from "../fields.ts";
import { type MlxSettings, mlxStackOf } from "./mlx.ts";

/** Says how the matrix of the module at `path` would be stored, if it is quantized. */
export type CheckpointQuantization =
  | { readonly kind: "none" }
  | { readonly kind: "bitsandbytes" }
  | { readonly kind: "mlx"; of(path: string): MlxSettings };

const GROUPS = [32, 64, 128];

/** Reads `quantization_config` (bitsandbytes, and MLX's copy of its own) and `quantization` (MLX). */
export function quantizationOf(f: Fields): CheckpointQuantization {
  if (f.has("quantization")) return mlx(f.object("quantization"));
  if (!f.has("quantization_config")) return { kind: "none" };
  const q = f.object("quantization_config");
  if (q.has("group_size") && q.has("bits") && !q.has("quant_method")) return mlx(q);
  const method = q.text(["quant_method"], q.has("load_in_4bit") ? "bitsandbytes" : undefined);
  if (method !== "bitsandbytes")
    q.fail(
      "quant_method",
      '"bitsandbytes", or the quantization of MLX',
      "Load the model that was quantized, with --quantize nf4 or int8 if it is too large.",
    );
  if (!q.flag("load_in_4bit", q.flag("_load_in_4bit", false)))
    q.fail("load_in_4bit", "true: of bitsandbytes' types, NF4 can be read", "Load the model that was quantized, with --quantize int8."); // prettier-ignore
  if (q.text(["bnb_4bit_quant_type"], "nf4") !== "nf4")
    q.fail("bnb_4bit_quant_type", '"nf4"', "Load the model that was quantized, with --quantize nf4.");
  return { kind: "bitsandbytes" };
}

function mlx(q: Fields): CheckpointQuantization {
  const mode = q.text(["mode"], "affine");
  if (mode !== "affine")
    q.fail("mode", '"affine"', "Load the model that was quantized, with --quantize nf4 or int8.");
  const usual = settingsOf(q);
  // Entries of single modules are objects; false marks one that is not quantized, which its tensors say as well.
  const own = new Map<string, MlxSettings>();
  for (const [path, value] of Object.entries(q.raw))
    if (typeof value === "object" && value !== null) own.set(path, settingsOf(q.object(path), usual));
  return { kind: "mlx", of: (path) => own.get(path) ?? own.get(mlxStackOf(path)) ?? usual };
}

function settingsOf(q: Fields, usual?: MlxSettings): MlxSettings {
  const bits = q.size(["bits"], usual?.bits);
  const group = q.size(["group_size"], usual?.group);
  if (bits !== 4 && bits !== 8) return q.fail("bits", "4 or 8");
  return GROUPS.includes(group) ? { bits, group } : q.fail("group_size", `one of ${GROUPS.join(", ")}`);
}
