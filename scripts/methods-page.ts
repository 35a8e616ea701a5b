/**
 * Writes the tables of methods in docs/methods.md and README.md from the declarations.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/methods-page.ts            exits with 1 if a table is out of date
 *   npx tsx --conditions=@tiedlora/source scripts/methods-page.ts --write    writes the tables
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./docs/navigation.ts";
import { withTables } from "./docs/methods.ts";

for (const file of ["docs/methods.md", "README.md"]) {
  const path = join(ROOT, file);
  const text = readFileSync(path, "utf8");
  const wanted = withTables(text);
  if (wanted === text) continue;
  if (process.argv.includes("--write")) writeFileSync(path, wanted);
  else {
    console.error(`${file}: its tables differ from the declarations: npx tsx --conditions=@tiedlora/source scripts/methods-page.ts --write`); // prettier-ignore
    process.exitCode = 1;
  }
}
