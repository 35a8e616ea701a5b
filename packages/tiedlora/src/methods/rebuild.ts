/** Declares a method again from its recipe in a file. */
import { FormatError } from "@tiedlora/core";
import type { Method, Recipe } from "../method.ts";
import { tiedLora } from "./index.ts";
import { checkOptions } from "./options.ts";
import { recipeOptions } from "./recipe.ts";
import { ENTRIES } from "./table.ts";
import type { TiedLoraOptions } from "./tied-lora.ts";

/** The declarations, by `method` in recipes. All members of the Tied-LoRA family share one, and differ in its options. */
const DECLARATIONS: Readonly<Record<string, (options: Record<string, unknown>) => Method>> = {
  "tied-lora": (options) => tiedLora(options as unknown as TiedLoraOptions),
  ...Object.fromEntries(
    ENTRIES.filter(({ member }) => member === null).map(({ name, declare }) => [name, declare]),
  ),
};

/** Declares the method of a recipe. Throws FormatError if the method is not in the library, or its options are invalid. */
export function methodFromRecipe(recipe: Recipe, file: string): Method {
  const options = inRecipe(file, () => recipeOptions(recipe));
  const declare = Object.hasOwn(DECLARATIONS, recipe.method) ? DECLARATIONS[recipe.method] : undefined;
  if (declare === undefined || options === null) {
    throw new FormatError({
      file,
      tensor: "recipe",
      found: declare === undefined ? `the method ${JSON.stringify(recipe.method)}` : "a custom option",
      expected: `one of ${Object.keys(DECLARATIONS).join(", ")} with plain options`,
      hint: "Load it with { method }, the declaration it was trained with.",
    });
  }
  return inRecipe(file, () => {
    checkOptions(options);
    return declare(options);
  });
}

/** Runs `build`, and rethrows its errors as FormatErrors about the file's recipe. */
function inRecipe<T>(file: string, build: () => T): T {
  try {
    return build();
  } catch (cause) {
    throw new FormatError({
      file,
      tensor: "recipe",
      found: (cause as Error).message,
      expected: "valid options",
    });
  }
}
