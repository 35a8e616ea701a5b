/** Drawings as SVG, in the page of a report or as files of their own. */
import { type Content, markup, type Markup, trusted } from "../markup.ts";
import type { Drawing, Ink, Outline, Shape, Text } from "./drawing.ts";

/** Both looks of the roles of colors, for files that stand alone; a page defines the same names. */
const STYLE = `svg { --text: #1c1c1c; --dim: #5a5a66; --line: #d5d7dc; --back: #fff; font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --text: #e8e8e8; --dim: #a0a0b0; --line: #3a3d45; --back: #16181d; } }`;

/** The drawing as an element of a page. */
export function svgElement(drawing: Drawing): Markup {
  return svg(drawing, "");
}

/** The drawing as a file. */
export function svgFile(drawing: Drawing): string {
  const background = markup`<rect width="100%" height="100%" fill="var(--back)"/>`;
  return `${String(svg(drawing, markup`<style>${trusted(STYLE)}</style>${background}`))}\n`;
}

function svg({ width, height, label, shapes }: Drawing, first: Content): Markup {
  return markup`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${label}">${first}
${shapes.map((shape) => markup`${element(shape)}\n`)}</svg>`;
}

const element = (shape: Shape): Markup => (shape.type === "text" ? text(shape) : outline(shape));

const ink = (name: Ink): string => (name.startsWith("#") ? name : `var(--${name})`);

function attributes(given: Readonly<Record<string, string | number | undefined>>): Markup[] {
  return Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [markup` ${trusted(name)}="${value}"`])); // prettier-ignore
}

function outline({ d, at, stroke, width, dash, fill, opacity, title }: Outline): Markup {
  const all = attributes({
    d,
    transform: at && `translate(${at.map((x) => x.toFixed(2)).join()})`,
    fill: fill === undefined ? "none" : ink(fill),
    stroke: stroke && ink(stroke),
    "stroke-width": width,
    "stroke-dasharray": dash?.join(" "),
    "stroke-linejoin": stroke && "round",
    opacity,
    "data-tip": title,
  });
  return title === undefined ? markup`<path${all}/>` : markup`<path${all}><title>${title}</title></path>`;
}

/** Letters have a border of the background's color, so that lines behind them do not hide them. */
function text({ x, y, text: content, size, ink: color, anchor, bold, upright }: Text): Markup {
  const all = attributes({
    x: x.toFixed(2),
    y: y.toFixed(2),
    "font-size": size,
    "font-weight": bold ? 600 : undefined,
    "text-anchor": anchor,
    transform: upright ? `rotate(-90 ${x.toFixed(2)} ${y.toFixed(2)})` : undefined,
    fill: ink(color),
    stroke: ink("back"),
    "stroke-width": 3,
    "paint-order": "stroke",
  });
  return markup`<text${all}>${content}</text>`;
}
