/** The site's settings. `npm run docs` writes the pages, and sidebar.json and icon.svg beside this file, and builds the site. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type DefaultTheme, defineConfig, type MarkdownRenderer } from "vitepress";
import { codeTheme } from "./code-theme.ts";
import { slug } from "./slug.ts";

const sidebar = JSON.parse(
  readFileSync(join(__dirname, "sidebar.json"), "utf8"),
) as DefaultTheme.SidebarMulti;

const icon = readFileSync(join(__dirname, "icon.svg"), "utf8");

const isSource = (path: string): boolean => path.startsWith("source/");

/** Gives each line of a source an anchor: #L12. */
function numberLines(md: MarkdownRenderer): void {
  const fence = md.renderer.rules.fence!;
  md.renderer.rules.fence = (tokens, i, options, env: { relativePath?: string }, self) => {
    const html = fence(tokens, i, options, env, self);
    if (!isSource(env.relativePath ?? "")) return html;
    let line = 0;
    return html.replaceAll('<span class="line">', () => `<span class="line" id="L${++line}">`);
  };
}

/** Reports are files, not pages: the browser opens them itself. */
function openFiles(md: MarkdownRenderer): void {
  const open = md.renderer.rules.link_open!;
  md.renderer.rules.link_open = (...args) =>
    open(...args).replace(/^<a (?=href="[^"]*\/files\/[^"]*\.html")/, '<a target="_self" ');
}

/** What lower headings have below them, such as the parameters of a method, is found with the heading above. */
const fewerHeadings = (html: string): string => html.replaceAll(/<(\/?)h[4-6]\b/g, "<$1p");

function config(md: MarkdownRenderer): void {
  numberLines(md);
  openFiles(md);
}

export default defineConfig({
  title: "tiedlora",
  description: "Tensors with automatic differentiation in TypeScript, and Tied-LoRA on them",
  lang: "en-US",
  head: [["link", { rel: "icon", href: `data:image/svg+xml,${encodeURIComponent(icon)}` }]],
  metaChunk: true, // the sidebars once, instead of in every page
  markdown: { anchor: { slugify: slug }, theme: codeTheme, config },
  vite: { build: { chunkSizeWarningLimit: 8192 } },
  themeConfig: {
    nav: [
      { text: "Guide", link: "/index.md", activeMatch: "^/(index.html)?$|^/guide/" },
      { text: "Lessons", link: "/lessons.md", activeMatch: "^/lessons" },
      { text: "Commands", link: "/commands.md" },
      { text: "API", link: "/api/index.md", activeMatch: "^/api/" },
    ],
    sidebar,
    outline: [2, 3],
    search: {
      provider: "local",
      options: {
        // Sources are not searched, only the pages about them; and what is searched needs no colors. The renderer is that of the
        // pages, so it gets its highlighter back.
        _render: (text, env, md) => {
          if (isSource(env.relativePath)) return "";
          const { highlight } = md.options;
          md.set({ highlight: null });
          try {
            return fewerHeadings(md.render(text, env));
          } finally {
            md.set({ highlight });
          }
        },
      },
    },
  },
});
