/** Drawings as PDF, by the package pdfkit, which who wants such files installs. */
import type PDFDocument from "pdfkit";
import type { Drawing, Ink, Outline, Text } from "../report/figure/drawing.ts";

/** The colors of the roles on paper. */
const INKS: Readonly<Record<string, string>> = { text: "#1c1c1c", dim: "#5a5a66", line: "#d5d7dc", back: "#ffffff" }; // prettier-ignore
const ink = (name: Ink): string => INKS[name] ?? name;

/** Writes drawings as PDF files. */
export type PdfWriter = (drawing: Drawing) => Promise<Uint8Array>;

/** Throws if pdfkit is not installed. */
export async function pdfWriter(): Promise<PdfWriter> {
  const { default: Document } = await import("pdfkit").catch((cause: unknown) => {
    throw new Error('figures as PDF need the package "pdfkit": npm install pdfkit', { cause });
  });
  return (drawing) => pdfOf(drawing, Document);
}

async function pdfOf(drawing: Drawing, Document: typeof PDFDocument): Promise<Uint8Array> {
  const { width, height, label, shapes } = drawing;
  // without a date, so that the same results are the same bytes
  const info = { Title: label, CreationDate: new Date(0) };
  const document = new Document({ size: [width, height], margin: 0, info });
  const chunks: Uint8Array[] = [];
  const end = new Promise((resolve, reject) => document.on("end", resolve).on("error", reject));
  document.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  for (const shape of shapes) {
    if (shape.type === "text") text(document, shape);
    else outline(document, shape);
  }
  document.end();
  await end;
  return Buffer.concat(chunks);
}

function outline(document: PDFKit.PDFDocument, { d, at, stroke, width, dash, fill, opacity }: Outline): void {
  document.save();
  if (at !== undefined) document.translate(...(at as [number, number]));
  document.opacity(opacity ?? 1).lineWidth(width ?? 1).lineJoin("round"); // prettier-ignore
  if (dash !== undefined) document.dash(dash[0]!, { space: dash[1] ?? dash[0]! });
  document.path(d);
  if (fill !== undefined && stroke !== undefined) document.fillAndStroke(ink(fill), ink(stroke));
  else if (fill !== undefined) document.fill(ink(fill));
  else if (stroke !== undefined) document.stroke(ink(stroke));
  document.restore();
}

function text(document: PDFKit.PDFDocument, shape: Text): void {
  const { x, y, text: content, size, ink: color, anchor, bold, upright } = shape;
  document.save();
  document.font(bold ? "Helvetica-Bold" : "Helvetica").fontSize(size).opacity(1); // prettier-ignore
  if (upright) document.rotate(-90, { origin: [x, y] });
  const left = x - document.widthOfString(content) * { start: 0, middle: 0.5, end: 1 }[anchor];
  const place = { lineBreak: false, baseline: "alphabetic" } as const;
  document.lineWidth(3).lineJoin("round").strokeColor(ink("back")).text(content, left, y, { ...place, stroke: true, fill: false }); // prettier-ignore
  document.fillColor(ink(color)).text(content, left, y, place);
  document.restore();
}
