/** The values of a tensor as a picture: blue below zero, red above, the background color at zero. */
import { byId } from "./dom.ts";
import type { Reply } from "../protocol.ts";

/** Shows the picture of a tensor; `name` describes the tensor and its owner. */
export function showPicture(
  { path, shape, rows, columns, values }: Extract<Reply, { type: "tensor" }>,
  name: string,
): void {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const canvas = byId("picture-canvas", HTMLCanvasElement);
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(columns, rows);
  values.forEach((value, i) => image.data.set(colourOf(largest === 0 ? 0 : value / largest), 4 * i));
  context.putImageData(image, 0, 0);
  const label = `${name}: ${shape.join(" × ")}, largest ${largest.toPrecision(3)}`;
  byId("picture-title").textContent = name;
  byId("picture-note").textContent =
    `${path} · ${shape.join(" × ")} · largest ${largest.toPrecision(3)} · blue is negative, red positive` +
    (rows * columns < shape.reduce((a, b) => a * b, 1) ? " · every so-many-th row and column" : "");
  canvas.setAttribute("aria-label", label);
  const dialog = byId("picture", HTMLDialogElement);
  if (!dialog.open) dialog.showModal();
}

function colourOf(value: number): [number, number, number, number] {
  const [r, g, b] = value < 0 ? [29, 78, 216] : [200, 40, 30];
  const mix = (channel: number): number => Math.round(245 + (channel - 245) * Math.sqrt(Math.abs(value)));
  return [mix(r), mix(g), mix(b), 255];
}
