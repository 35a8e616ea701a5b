/** The GEMM core as programs import it: a separate module, compiled once per process. */
import type { Callable, Module } from "../assembler.ts";
import {
  BLOCK_NAME,
  BLOCK_PARAMS,
  GEMM_DTYPES,
  type GemmDType,
  IN_PLACE_NAME,
  IN_PLACE_PARAMS,
  PACK_PARAMS,
  packName,
} from "./gemm.ts";

/** The name by which programs import the GEMM core. */
export const GEMM_MODULE = "gemm";

export interface GemmImports {
  readonly pack: (side: "A" | "B", dtype: GemmDType) => Callable;
  readonly block: Callable;
  readonly blockInPlace: Callable;
}

export function importGemm(module: Module): GemmImports {
  const packs = new Map<string, Callable>();
  for (const side of ["A", "B"] as const) {
    for (const dtype of GEMM_DTYPES) {
      const name = packName(side, dtype);
      packs.set(name, module.import(GEMM_MODULE, name, PACK_PARAMS, []));
    }
  }
  const block = module.import(GEMM_MODULE, BLOCK_NAME, BLOCK_PARAMS, []);
  const blockInPlace = module.import(GEMM_MODULE, IN_PLACE_NAME, IN_PLACE_PARAMS, []);
  const pack = (side: "A" | "B", dtype: GemmDType): Callable => {
    const found = packs.get(packName(side, dtype));
    if (found === undefined) throw new Error(`the GEMM core packs f32, f16 and bf16, not ${dtype}`);
    return found;
  };
  return { pack, block, blockInPlace };
}
