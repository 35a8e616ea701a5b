/**
 * Builds the page: static files in dist/, or in the directory that is given.
 *
 *   npm run playground:build
 */
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const here = import.meta.dirname;
const out = resolve(process.argv[2] ?? join(here, "dist"));
const base = join(here, "../../packages/tiedlora/assets/base");
if (!existsSync(base)) throw new Error(`there is no base model in ${base}; train it: npm run pretrain`);

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
cpSync(base, join(out, "base"), { recursive: true });
console.log(`the page is in ${out}`);
