/** The API pages as Markdown, from the docstrings of all entry points of the packages, by typedoc. */
import { readFileSync } from "node:fs";
import { join, posix } from "node:path";
import {
  Application,
  Converter,
  type ProjectReflection,
  ReflectionKind,
  TSConfigReader,
  type TypeDocOptions,
} from "typedoc";
import {
  type MarkdownApplication,
  MarkdownPageEvent,
  type NavigationItem,
  type PluginOptions,
} from "typedoc-plugin-markdown";
import { LAYERS, PRIVATE_ENTRIES } from "../layers.ts";
import { ROOT, type SidebarItem } from "./navigation.ts";
import type { ApiLinks } from "./pages.ts";

/** The kinds of reflections whose pages list others and that have no declaration themselves. */
const CONTAINERS = [ReflectionKind.Project, ReflectionKind.Module, ReflectionKind.Namespace];

export interface ApiPages extends ApiLinks {
  /** The sidebar of each package's pages, by the path at which they begin. */
  readonly sidebars: Readonly<Record<string, readonly SidebarItem[]>>;
}

/** The import name of each public entry point, by its source file; a package comes after those that it uses. */
function entryPoints(): Map<string, string> {
  const found = LAYERS.flatMap(({ name, folder }) => {
    const manifest = readFileSync(join(ROOT, folder, "package.json"), "utf8");
    const { exports } = JSON.parse(manifest) as {
      exports: Record<string, string | { "@tiedlora/source": string }>;
    };
    return Object.entries(exports).flatMap(([key, entry]): [string, string][] =>
      typeof entry === "string" ? [] : [[posix.join(folder, entry["@tiedlora/source"]), name + key.slice(1)]],
    );
  });
  return new Map(found.filter(([, name]) => !isPrivate(name)));
}

const isPrivate = (name: string): boolean =>
  Object.keys(PRIVATE_ENTRIES).some((entry) => name === entry || name.startsWith(`${entry}/`));

/** Writes `folder`/api, from all entry points or those whose name `wanted` accepts. Rejects if a docstring is missing. */
export async function writeApi(
  folder: string,
  wanted: (name: string) => boolean = () => true,
): Promise<ApiPages> {
  const entries = new Map([...entryPoints()].filter(([, name]) => wanted(name)));
  const app = (await Application.bootstrapWithPlugins(optionsFor(entries, join(folder, "api")), [
    new TSConfigReader(),
  ])) as MarkdownApplication;
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const file of nameModules(project, entries))
      app.logger.error(`${file}: expected a comment at the top that ends with @module`);
  });
  const sources = new Set<string>();
  app.renderer.on(MarkdownPageEvent.END, (page) => {
    page.contents = asList(page.contents);
    const links = [...page.contents.matchAll(/\]\(\/source\/([^)]+)\.md#L\d+\)/g)];
    for (const [, file = ""] of links) sources.add(file);
    if (links.length === 0 && page.isReflectionEvent() && !CONTAINERS.includes(page.model.kind))
      app.logger.error(`${page.url}: expected a link to a source`);
  });
  let navigation: readonly NavigationItem[] = [];
  let pages = new Map<string, string>();
  app.renderer.postRenderAsyncJobs.push((output) => {
    navigation = output.navigation ?? [];
    pages = pagesOf(app, output.project);
    return Promise.resolve();
  });
  const project = await app.convert();
  if (project !== undefined) app.validate(project);
  if (project !== undefined && !app.logger.hasErrors() && !app.logger.hasWarnings())
    await app.generateOutputs(project);
  if (project === undefined || app.logger.hasErrors() || app.logger.hasWarnings())
    throw new Error("the API pages could not be made: see above");
  return { pages, sources: [...sources], sidebars: sidebarsOf(navigation) };
}

function optionsFor(entries: ReadonlyMap<string, string>, out: string): TypeDocOptions & PluginOptions {
  const packages = [...entries.values()].map((name) => /^(?:@[^/]+\/)?[^/]+/.exec(name)![0]);
  return {
    name: "API",
    entryPoints: [...entries.keys()].map((file) => join(ROOT, file)),
    tsconfig: join(ROOT, "tsconfig.docs.json"),
    plugin: ["typedoc-plugin-markdown"],
    outputs: [{ name: "markdown", path: out }],
    logLevel: "Warn",
    skipErrorChecking: true, // `npm run check` does it
    readme: "none",
    sortEntryPoints: false,
    // Sources are pages of the site.
    basePath: ROOT,
    displayBasePath: ROOT,
    disableGit: true,
    gitRevision: "none",
    sourceLinkTemplate: "/source/{path}.md#L{line}",
    validation: { notExported: false, invalidLink: true, notDocumented: true },
    requiredToBeDocumented: [
      "Class",
      "Interface",
      "TypeAlias",
      "Variable",
      "Enum",
      "Function",
      "Method",
      "Accessor",
    ],
    packagesRequiringDocumentation: [...new Set(packages)],
    // These options define the form of the pages.
    router: "member",
    entryFileName: "index",
    excludeScopesInPaths: true,
    hidePageHeader: true,
    sanitizeComments: true,
    excludeInternal: true,
    excludeExternals: true, // leaves out members that errors inherit from Error
    useCodeBlocks: true,
    expandParameters: true,
    indexFormat: "table",
    parametersFormat: "table",
    interfacePropertiesFormat: "table",
    classPropertiesFormat: "table",
    typeAliasPropertiesFormat: "table",
    typeDeclarationFormat: "table",
    tableColumnSettings: { leftAlignHeaders: true },
    pageTitleTemplates: { member: "{name}" },
  };
}

/** Names modules after their import names, and returns the files of those without a comment. */
function nameModules(project: ProjectReflection, entries: ReadonlyMap<string, string>): string[] {
  const modules = project.getReflectionsByKind(ReflectionKind.Module);
  return modules.flatMap((module) => {
    const file = (module.isDeclaration() ? module.sources?.[0]?.fileName : undefined) ?? "";
    module.name = entries.get(file) ?? module.name;
    return module.comment === undefined ? [file] : [];
  });
}

/** Turns re-exports into a list; typedoc's Markdown has a heading for each. */
function asList(text: string): string {
  return text.replaceAll(
    /^### (.+)\n\n(Re-exports|Renames and re-exports) (\[.*)\n(?:\n\*\*\*\n)?\n?/gm,
    "- $3\n",
  );
}

/** The API pages of the declarations of modules, by "file#name". */
function pagesOf(app: MarkdownApplication, project: ProjectReflection): Map<string, string> {
  const pages = new Map<string, string>();
  for (const one of Object.values(project.reflections)) {
    const file = one.isDeclaration() && !one.isReference() ? one.sources?.[0]?.fileName : undefined;
    if (file === undefined || one.parent === undefined || !CONTAINERS.includes(one.parent.kind)) continue;
    if (app.renderer.router?.hasUrl(one) === true)
      pages.set(`${file}#${one.name}`, `api/${app.renderer.router.getFullUrl(one)}`);
  }
  return pages;
}

/** The sidebar for each package: all entry points, and the members of the entry points of this package. */
function sidebarsOf(navigation: readonly NavigationItem[]): Record<string, SidebarItem[]> {
  const item = ({ title, path, children }: NavigationItem): SidebarItem => ({
    text: title,
    ...(path && { link: `/api/${path}` }),
    ...(children && { items: children.map(item), collapsed: true }),
  });
  const folderOf = ({ path }: NavigationItem): string => path?.split("/", 1)[0] ?? "";
  const sidebar = (folder: string): SidebarItem[] => [
    { text: "API", link: "/api/index.md" },
    ...navigation.map((one) => {
      const { text, link, items } = item(one);
      const open = folderOf(one) === folder && items !== undefined;
      return { text, ...(link && { link }), ...(open && { items, collapsed: false }) };
    }),
  ];
  const folders = new Set(["", ...navigation.map(folderOf)]);
  return Object.fromEntries(
    [...folders].map((name) => [name === "" ? "/api/" : `/api/${name}/`, sidebar(name)]),
  );
}
