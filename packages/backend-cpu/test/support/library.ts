/** A library whose functions all serve all sizes, and that checks the keys of steps: one key means one code. */
import assert from "node:assert/strict";
import { Module } from "../../src/codegen/assembler.ts";
import { type Code, type CodeModule, Library, type Structured } from "../../src/codegen/library.ts";
import { importGemm } from "../../src/codegen/matmul/imports.ts";

export class GeneralLibrary extends Library {
  readonly #codes = new Map<string, Uint8Array>();

  override find(step: Structured, values: readonly number[], code: CodeModule, module: Module): Code {
    const alone = new Module();
    importGemm(alone);
    step.emit(alone, "alone", true);
    const bytes = alone.bytes({ shared: false });
    const known = this.#codes.get(step.key);
    if (known === undefined) this.#codes.set(step.key, bytes);
    else {
      assert.deepEqual(bytes, known, `the code of ${step.key} depends on ${JSON.stringify(step.numbers)}`);
    }
    return super.find(step, values, code, module);
  }

  protected override isGeneral(): boolean {
    return true;
  }
}
