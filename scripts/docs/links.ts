/** Whether the links of a folder of HTML pages lead somewhere: to a file, and in it to the anchor. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** "guide/install.html: data.html#columns", for each link that leads nowhere in a site that is served below `base`. */
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

/** The links and images of a page to places in the same folder. */
function targetsOf(html: string): string[] {
  return [...html.matchAll(/\s(?:href|src)="([^"]*)"/g)]
    .map(([, target = ""]) => target.replaceAll("&amp;", "&"))
    .filter((target) => !/^[a-z][a-z+.-]*:/i.test(target));
}
