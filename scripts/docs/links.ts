/** Whether the links of a folder of HTML pages lead somewhere: to a file, and in it to the anchor. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, posix } from "node:path";

/** "guide/install.html: data.html#columns", for each link that leads nowhere. Pages of `ignored` are not looked at. */
export function brokenLinks(folder: string, ignored: (path: string) => boolean = () => false): string[] {
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
    if (ignored(path)) return true;
    const file = join(folder, path);
    if (!existsSync(file) || statSync(file).isDirectory()) return false;
    return anchor === "" || hasAnchor(path, anchor);
  };
  return pages
    .filter((page) => !ignored(page))
    .flatMap((page) =>
      targetsOf(readFileSync(join(folder, page), "utf8"))
        .filter((target) => {
          const [path = "", anchor = ""] = target.split("#");
          const to =
            path === "" ? page : posix.normalize(posix.join(posix.dirname(page), decodeURIComponent(path)));
          return !leads(to, decodeURIComponent(anchor));
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
