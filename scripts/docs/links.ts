/** Checks the links in a folder of HTML pages: their files and anchors must exist. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** The broken links of a site that is served under `base`, such as "guide/install.html: data.html#columns". */
export function brokenLinks(folder: string, base = "/"): string[] {
  const pages = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".html"));
  const ids = new Map<string, ReadonlySet<string>>();
  const hasAnchor = (path: string, anchor: string): boolean => {
    const known = ids.get(path) ?? anchorsOf(readFileSync(join(folder, path), "utf8"));
    ids.set(path, known);
    return known.has(anchor);
  };
  const leads = (path: string, anchor: string): boolean => {
    const file = join(folder, path);
    if (!existsSync(file) || statSync(file).isDirectory()) return false;
    return anchor === "" || hasAnchor(path, anchor);
  };
  return pages.flatMap((page) =>
    targetsOf(readFileSync(join(folder, page), "utf8"))
      .filter((target) => {
        const to = new URL(target, `http://site${base}${page}`);
        const path = decodeURIComponent(to.pathname);
        if (!path.startsWith(base)) return true;
        return !leads(
          path.slice(base.length).replace(/(^|\/)$/, "$1index.html"),
          decodeURIComponent(to.hash.slice(1)),
        );
      })
      .map((target) => `${page}: ${target}`),
  );
}

const anchorsOf = (html: string): Set<string> =>
  new Set([...html.matchAll(/\sid="([^"]*)"/g)].map(([, id = ""]) => id));

/** The targets of links and images of a page, without those on other servers. */
function targetsOf(html: string): string[] {
  return [...html.matchAll(/\s(?:href|src)="([^"]*)"/g)]
    .map(([, target = ""]) => target.replaceAll("&amp;", "&"))
    .filter((target) => !/^[a-z][a-z+.-]*:/i.test(target));
}
