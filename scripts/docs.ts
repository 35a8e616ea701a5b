/**
 * Builds the documentation into docs/site: the guide, the lessons, the reference of the commands, the sources that pages link to,
 * and the API pages from the docstrings. Ends with an error if a link leads nowhere.
 *
 *   npm run docs
 *   npm run docs -- --no-api     without the API pages, which take the longest
 */
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { brokenLinks } from "./docs/links.ts";
import { buildSite, ROOT } from "./docs/site.ts";

const folder = join(ROOT, "docs/site");
const withApi = !process.argv.includes("--no-api");

rmSync(folder, { recursive: true, force: true });
buildSite(folder);
if (withApi) {
  const typedoc = join(ROOT, "node_modules/typedoc/bin/typedoc");
  const { status } = spawnSync(process.execPath, [typedoc, "--out", join(folder, "api")], {
    cwd: ROOT,
    stdio: "inherit",
  });
  if (status !== 0) throw new Error("typedoc failed: see above");
}
const broken = brokenLinks(
  folder,
  (path) => path.startsWith("api/") && (!withApi || path !== "api/index.html"),
);
for (const link of broken) console.error(`leads nowhere: ${link}`);
if (broken.length > 0) process.exitCode = 1;
else console.log(`the documentation is in ${folder}: open index.html`);
