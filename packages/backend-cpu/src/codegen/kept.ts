/** Compiled programs as a lasting cache has them, so that a later process generates no code for a program that this one had. */
import type { LastingKey, Program, Step } from "@tiedlora/kernels";
import { CodeModule, type KeptFunction, type Library } from "./library.ts";
import type { GeneratedCode, ProgramOptions } from "./compiled.ts";

/** A program's functions with the module of those that it was the first to have. */
export interface Kept extends Pick<GeneratedCode, "calls" | "scratchBytes" | "cost"> {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly functions: readonly KeptFunction[];
}

export function keptOf({ functions, module, calls, scratchBytes, cost }: GeneratedCode): Kept {
  const own = functions.map(({ key, isGeneral, numbers, module: of, index }): KeptFunction => {
    return { key, isGeneral, numbers, index: of === module ? index : null };
  });
  return { functions: own, bytes: module.bytes, calls, scratchBytes, cost };
}

/** The program with its functions added to `library`; null if there is none, or if the library lacks a function that it had elsewhere. */
export function restored(kept: Kept | undefined, library: Library): GeneratedCode | null {
  if (kept === undefined) return null;
  const module = new CodeModule();
  const functions = library.restore(kept.functions, module);
  if (functions === null) return null;
  module.bytes = kept.bytes;
  const { calls, scratchBytes, cost } = kept;
  return { functions, module, calls, scratchBytes, cost };
}

/** All that a program's code follows from. */
export function keyOf({ buffers, scalars, steps }: Program, options: ProgramOptions): LastingKey {
  return [JSON.stringify([options, buffers, scalars, steps]), steps.map(specials).join(";")];
}

/** The constants of a step that JSON does not have: infinities, NaN and the negative zero. */
function specials(step: Step): string {
  const body = step.type === "loop" ? step.body : step.name === "matmul" ? step.params.epilogue?.body : [];
  const special = (body ?? []).flatMap((instr, i) =>
    instr.op !== "const" || (Number.isFinite(instr.value) && !Object.is(instr.value, -0))
      ? []
      : `${i} ${Object.is(instr.value, -0) ? "-0" : instr.value}`,
  );
  return special.join();
}
