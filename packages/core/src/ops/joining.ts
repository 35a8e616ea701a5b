/** Concatenation, and sums of gradients of slices. A few parts are padded and added, which fuses; many are copied, each once. */
import { add, binary, cast, fill, pad } from "../build.ts";
import { isOp, Node } from "../graph.ts";
import { show } from "../shape.ts";

/** Up to this number of parts, searching all of them for an element is cheaper than storing them in memory. */
const FEW = 8;

/** Joins `pieces` along `axis`; they must have one type and equal lengths along the other axes. */
export function concat(pieces: readonly Node[], axis: number): Node {
  const { shape: like, dtype } = pieces[0]!;
  let length = 0;
  for (const { shape, dtype: other } of pieces) {
    const fits = shape.length === like.length && shape.every((d, i) => i === axis || d === like[i]);
    if (!fits || other !== dtype) {
      throw new RangeError(
        `concat: ${show(like)} ${dtype} and ${show(shape)} ${other} differ beside axis ${axis}; make all other axes and the types equal`,
      );
    }
    length += shape[axis]!;
  }
  if (pieces.length > FEW) return new Node("concat", { axis }, pieces, like.with(axis, length), dtype);
  let start = 0;
  const padded = pieces.map((piece) => {
    const before = start;
    start += piece.shape[axis]!;
    return pad(piece, like.map((_, i) => (i === axis ? [before, length - start] : [0, 0]))); // prettier-ignore
  });
  return cast(padded.reduce((a, b) => (dtype === "bool" ? binary("or", a, b) : add(a, b))), dtype); // prettier-ignore
}

/** Part of a value along one axis, and zeros elsewhere. */
interface Part {
  readonly axis: number;
  readonly start: number;
  readonly piece: Node;
}

/** The sum of gradients of one value. Gradients of many slices along one axis are concatenated instead of added. */
export function total(terms: readonly Node[]): Node {
  const parts = terms.length > FEW ? terms.map(partOf) : [];
  const axis = parts.find((part) => part !== null)?.axis;
  const joinable = parts.filter((part): part is Part => part?.axis === axis);
  if (axis === undefined || joinable.length <= FEW) return terms.reduce(add);
  const others = terms.filter((_, i) => parts[i]?.axis !== axis);
  const { shape } = terms[0]!;
  return [...layers(joinable).map((layer) => filled(layer, shape[axis]!)), ...others].reduce(add);
}

function partOf(node: Node): Part | null {
  if (!isOp(node, "pad")) return null;
  const axes = node.attrs.widths.flatMap(([before, after], axis) => (before + after > 0 ? [axis] : []));
  const [axis] = axes as [number];
  return axes.length === 1 ? { axis, start: node.attrs.widths[axis]![0], piece: node.inputs[0] } : null;
}

const lengthOf = ({ piece, axis }: Part): number => piece.shape[axis]!;

/** The parts in the smallest number of lists without overlaps. Parts with the same range are added first. */
function layers(parts: readonly Part[]): Part[][] {
  const distinct = new Map<string, Part>();
  for (const part of parts) {
    const key = `${part.start} ${lengthOf(part)}`;
    const same = distinct.get(key);
    distinct.set(key, same ? { ...same, piece: add(same.piece, part.piece) } : part);
  }
  const found: { end: number; parts: Part[] }[] = [];
  for (const part of [...distinct.values()].sort((a, b) => a.start - b.start)) {
    let layer = found.find(({ end }) => end <= part.start);
    if (!layer) found.push((layer = { end: 0, parts: [] }));
    layer.parts.push(part);
    layer.end = part.start + lengthOf(part);
  }
  return found.map((layer) => layer.parts);
}

/** Parts that do not overlap, in order, with zeros between and around them, up to `length`. */
function filled(parts: readonly Part[], length: number): Node {
  const [{ axis, piece }] = parts as [Part];
  const zeros = (n: number): Node[] => (n > 0 ? [fill(0, piece.shape.with(axis, n), piece.dtype)] : []);
  let end = 0;
  const pieces = parts.flatMap((part) => {
    const gap = part.start - end;
    end = part.start + lengthOf(part);
    return [...zeros(gap), part.piece];
  });
  return concat([...pieces, ...zeros(length - end)], axis);
}
