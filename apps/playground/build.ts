/**
 * Builds the page: static files, by default in dist/ and with the project's own base model.
 *
 *   npm run playground:build [-- --out DIR] [--base DIR] [--no-with-base]
 */
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const here = import.meta.dirname;
const { values } = parseArgs({
  allowNegative: true,
  options: {
    out: { type: "string", default: join(here, "dist") },
    base: { type: "string", default: join(here, "../../packages/tiedlora/assets/base") },
    "with-base": { type: "boolean", default: true },
  },
});
const out = resolve(values.out);

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await build({
  entryPoints: {
    page: join(here, "src/page/main.ts"),
    style: join(here, "page.css"),
    worker: join(here, "src/worker/main.ts"),
  },
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2023",
  conditions: ["@tiedlora/source"],
  external: ["webgpu", "node:*"],
  minify: true,
  sourcemap: true,
  logLevel: "warning",
});
for (const file of ["index.html", "icon.svg"]) cpSync(join(here, file), join(out, file));
if (values["with-base"]) {
  if (!existsSync(values.base))
    throw new Error(`there is no base model in ${values.base}; train it: npm run pretrain`);
  cpSync(values.base, join(out, "base"), { recursive: true });
}
console.log(`the page is in ${out}`);
