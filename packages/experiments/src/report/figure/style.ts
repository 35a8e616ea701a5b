/** The colors and marks of a chart's series. */
import {
  symbol,
  symbolCircle,
  symbolCross,
  symbolDiamond,
  symbolSquare,
  symbolStar,
  symbolTriangle,
  symbolWye,
} from "d3-shape";
import type { Ink } from "./drawing.ts";

/** Eight colors that color-blind people can tell apart too (Okabe and Ito). */
const COLORS: readonly Ink[] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#7a7a7a"]; // prettier-ignore

/** Seven marks: together with the colors, 56 series are distinct. */
const MARKS = [symbolCircle, symbolSquare, symbolTriangle, symbolDiamond, symbolCross, symbolStar, symbolWye];

/** The color of the series with this number. */
export const colorOf = (series: number): Ink => COLORS[series % COLORS.length]!;

/** The outline of its mark around the origin, of `area` square points. */
export const markOf = (series: number, area: number): string => symbol(MARKS[series % MARKS.length], area)()!;
