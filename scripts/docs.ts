/**
 * Builds the documentation as a site into docs/site: the guide, the lessons, the reference of the commands and of the API, and
 * the sources that they link to. Fails if a link is broken. Any static server can serve the site.
 *
 *   npm run docs
 *   npm run docs -- --base /tiedlora/     for a site that is served under this path
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildSite } from "./docs/build.ts";
import { ROOT } from "./docs/navigation.ts";

const { base } = parseArgs({ options: { base: { type: "string", default: "/" } } }).values;
if (!/^\/(.*\/)?$/.test(base)) {
  console.error(`docs: --base ${base}: expected a path that begins and ends with a slash, as /tiedlora/`);
  process.exit(2);
}
const folder = join(ROOT, "docs/site");
const broken = await buildSite(folder, { base });
for (const link of broken) console.error(`leads nowhere: ${link}`);
if (broken.length > 0) process.exitCode = 1;
else console.log(`the documentation is in ${folder}; to look at it: npx vite preview --outDir docs/site`);
