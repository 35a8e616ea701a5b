/** A drawing as a list of shapes, which files of different formats are written from. Lengths are in points, y grows downwards. */

/** A color: #rrggbb, or the role of one that depends on what the drawing is shown on. */
export type Ink = "text" | "dim" | "line" | "back" | `#${string}`;

/** A line or an area. */
export interface Outline {
  readonly type: "outline";
  /** In the syntax of SVG paths, around `at`. */
  readonly d: string;
  readonly at?: readonly [x: number, y: number];
  readonly stroke?: Ink;
  readonly width?: number;
  readonly dash?: readonly number[];
  readonly fill?: Ink;
  readonly opacity?: number;
  /** What is said about it where the format can: the text of a tooltip. */
  readonly title?: string;
}

/** A line of text; `y` is its baseline. */
export interface Text {
  readonly type: "text";
  readonly x: number;
  readonly y: number;
  readonly text: string;
  readonly size: number;
  readonly ink: Ink;
  readonly anchor: "start" | "middle" | "end";
  readonly bold?: boolean;
  /** Written upwards. */
  readonly upright?: boolean;
}

export type Shape = Outline | Text;

export interface Drawing {
  readonly width: number;
  readonly height: number;
  /** What can be seen, for those who do not see it. */
  readonly label: string;
  readonly shapes: readonly Shape[];
}

/** A rectangle. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** The width of a text in a common sans-serif font, roughly. */
export const textWidth = (text: string, size: number): number => text.length * size * 0.56;

/** A path through points, in the syntax of SVG. */
export const pathThrough = (points: readonly (readonly [number, number])[]): string =>
  points.map(([x, y], i) => `${i === 0 ? "M" : "L"}${x.toFixed(2)},${y.toFixed(2)}`).join("");
