/** Builds the site: writes pages as Markdown into a temporary folder, lets VitePress make HTML of it, and checks every link. */
import { cpSync, mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "vitepress";
import { writeApi } from "./api.ts";
import { brokenLinks } from "./links.ts";
import { guideSidebar, ROOT } from "./navigation.ts";
import { writePages } from "./pages.ts";

export interface SiteOptions {
  /** The path below which the site is served, with a slash at both ends: "/" or "/docs/". */
  readonly base: string;
  /** Whether an entry point gets API pages, by its import name. By default all do. */
  readonly api?: (name: string) => boolean;
}

/** Writes the site into `folder`, and returns the broken links. */
export async function buildSite(folder: string, { base, api }: SiteOptions): Promise<string[]> {
  const cache = join(ROOT, ".cache"); // inside the repository, so that VitePress finds its packages
  mkdirSync(cache, { recursive: true });
  const pages = mkdtempSync(join(cache, "docs-pages-"));
  try {
    cpSync(join(ROOT, "docs/.vitepress"), join(pages, ".vitepress"), { recursive: true });
    cpSync(join(ROOT, "apps/playground/icon.svg"), join(pages, ".vitepress/icon.svg"));
    const { sidebars, ...links } = await writeApi(pages, api);
    writePages(pages, links);
    const sidebar = { "/": guideSidebar(), ...sidebars };
    writeFileSync(join(pages, ".vitepress/sidebar.json"), JSON.stringify(sidebar));

    await build(pages, { outDir: folder, base });
    return brokenLinks(folder, base);
  } finally {
    rmSync(pages, { recursive: true, force: true });
  }
}
