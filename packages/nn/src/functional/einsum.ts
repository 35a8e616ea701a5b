/** Einstein summation over any number of operands, by permutation, broadcasting and matmul. */
import { product, type Tensor } from "@tiedlora/core";
import { checkTensors, show } from "@tiedlora/core/extend";

interface Labelled {
  readonly x: Tensor;
  readonly labels: readonly string[];
}

const malformed = (spec: string, what: string): SyntaxError =>
  new SyntaxError(`einsum: "${spec}": ${what}; write e.g. "bij,bjk->bik", or "...ij,...jk->...ik"`);

/** The labels of a term, where "..." counts as one label. */
function labelsOf(spec: string, term: string): string[] {
  const labels: string[] = term.match(/\.\.\.|./gsu) ?? [];
  const odd = labels.find((label) => !/^([a-zA-Z]|\.\.\.)$/.test(label));
  if (odd !== undefined) throw malformed(spec, `"${odd}" is no label; labels are letters`);
  if (labels.indexOf("...") !== labels.lastIndexOf("...")) throw malformed(spec, `"${term}" has two "..."`);
  return labels;
}

/** `labels` with "..." replaced by `count` labels, one per axis, numbered from the right ("...1" is last) so that axes align. */
function spelledOut(labels: readonly string[], count: number): string[] {
  const axes = Array.from({ length: count }, (_, i) => `...${count - i}`);
  return labels.flatMap((label) => (label === "..." ? axes : [label]));
}

function parse(
  spec: string,
  operands: readonly Tensor[],
): { inputs: Labelled[]; output: string[]; size: Map<string, number> } {
  const given: unknown = spec;
  const sides = typeof given === "string" ? given.replaceAll(" ", "").split("->") : [];
  if (sides.length === 0 || sides.length > 2) throw malformed(spec, 'give one equation with one "->"');
  const terms = sides[0]!.split(",").map((term) => labelsOf(spec, term));
  if (terms.length !== operands.length)
    throw malformed(spec, `${terms.length} terms for ${operands.length} tensors, each of which needs one`);
  const counts = terms.map((labels, i) => {
    const named = labels.filter((label) => label !== "...").length;
    const rank = operands[i]!.shape.length;
    if (named < labels.length ? named <= rank : named === rank) return rank - named;
    throw new RangeError(
      `einsum: term "${labels.join("")}" must name each axis of ${show(operands[i]!.shape)}, or leave some to "..."`,
    );
  });
  const named = operands.map((x, i): Labelled => ({ x, labels: spelledOut(terms[i]!, counts[i]!) }));
  const size = sizes(named);
  const widest = Math.max(...counts.filter((_, i) => terms[i]!.includes("...")), 0);
  const output = spelledOut(sides.length === 2 ? labelsOf(spec, sides[1]!) : implied(terms), widest);
  const unknown = output.filter((label) => !size.has(label));
  if (unknown.length > 0) throw malformed(spec, `"${unknown.join("")}" of the result is in no term`);
  if (new Set(output).size < output.length) throw malformed(spec, "the result names a label twice");
  return { inputs: named.map((term) => stretched(diagonal(term), size)), output, size };
}

/** The result's labels for an equation without "->", as in NumPy: "...", if any, then the labels that occur once, sorted. */
function implied(terms: readonly (readonly string[])[]): string[] {
  const all = terms.flat();
  const once = all.filter((label) => label !== "..." && all.indexOf(label) === all.lastIndexOf(label));
  return [...(all.includes("...") ? ["..."] : []), ...once.sort()];
}

/** The length of each label. Throws RangeError if a label has two lengths, except that axes of "..." broadcast. */
function sizes(inputs: readonly Labelled[]): Map<string, number> {
  const size = new Map<string, number>();
  for (const { x, labels } of inputs) {
    for (const [axis, label] of labels.entries()) {
      const length = x.shape[axis]!;
      const known = size.get(label) ?? length;
      const broadcasts = label.startsWith("...") && (known === 1 || length === 1);
      if (known !== length && !broadcasts)
        throw new RangeError(
          `einsum: "${label}" is ${known} in one place and ${length} in another; make them equal`,
        );
      size.set(label, known === 1 ? length : known);
    }
  }
  return size;
}

/** The term without the axes of length 1 that broadcast to a longer one: a term that lacks a label is constant along it. */
function stretched({ x, labels }: Labelled, size: ReadonlyMap<string, number>): Labelled {
  const kept = labels.flatMap((label, i) => (x.shape[i] === size.get(label) ? [i] : []));
  return { x: x.reshape(kept.map((i) => x.shape[i]!)), labels: kept.map((i) => labels[i]!) };
}

/** The term with each label once: for a repeated label, the elements whose indices along its axes are equal. */
function diagonal(term: Labelled): Labelled {
  const { x, labels } = term;
  const second = labels.findIndex((label, i) => labels.indexOf(label) < i);
  if (second < 0) return term;
  const first = labels.indexOf(labels[second]!);
  const n = x.shape[first]!;
  const rest = labels.flatMap((_, i) => (i === first || i === second ? [] : [i]));
  const outer = rest.map((i) => x.shape[i]!);
  const flat = x.permute([...rest, first, second]).reshape([...outer, n * n]);
  const taken = flat.slice(...outer.map(() => null), [0, n * n, n + 1]);
  return diagonal({ x: taken, labels: [...rest, first].map((i) => labels[i]!) });
}

/** The term's tensor with its axes in the order of `order`, and an axis of length 1 for each label that it lacks. */
function align({ x, labels }: Labelled, order: readonly string[]): Tensor {
  const present = order.filter((label) => labels.includes(label));
  const moved = x.permute(present.map((label) => labels.indexOf(label)));
  return moved.reshape(order.map((label) => (labels.includes(label) ? x.shape[labels.indexOf(label)]! : 1)));
}

/** Sums over the axes whose labels are not in `needed`, i.e. occur neither in other operands nor in the result. */
function reduceUnneeded({ x, labels }: Labelled, needed: ReadonlySet<string>): Labelled {
  const axes = labels.flatMap((label, i) => (needed.has(label) ? [] : [i]));
  if (axes.length === 0) return { x, labels };
  return { x: x.sum(axes), labels: labels.filter((label) => needed.has(label)) };
}

/** Contracts two operands: shared labels that are not needed later are summed by one matmul. */
function contract(
  a: Labelled,
  b: Labelled,
  needed: ReadonlySet<string>,
  size: ReadonlyMap<string, number>,
): Labelled {
  const shared = a.labels.filter((label) => b.labels.includes(label));
  const batch = shared.filter((label) => needed.has(label));
  const inner = shared.filter((label) => !needed.has(label));
  const left = a.labels.filter((label) => !shared.includes(label));
  const right = b.labels.filter((label) => !shared.includes(label));
  const lengths = (labels: readonly string[]): number[] => labels.map((label) => size.get(label)!);
  const labels = [...batch, ...left, ...right];
  if (inner.length === 0) return { x: align(a, labels).mul(align(b, labels)), labels };
  const [m, k, n] = [left, inner, right].map((group) => product(lengths(group)));
  const x = align(a, [...batch, ...left, ...inner]).reshape([...lengths(batch), m!, k!]);
  const y = align(b, [...batch, ...inner, ...right]).reshape([...lengths(batch), k!, n!]);
  return { x: x.matmul(y).reshape(lengths(labels)), labels };
}

/**
 * Einstein summation: `spec` has a letter for each axis of each tensor and for each axis of the result, e.g.
 * `einsum("bij,bjk->bik", x, y)`. Letters that the result does not have are summed over. A letter repeated within a term selects
 * a diagonal ("ii->i") or gives a trace ("ii->"); "..." stands for axes that broadcast. Without "->" the result has the axes of
 * "...", then the letters that occur once, in alphabetical order. Operands are contracted from left to right. Throws SyntaxError
 * for a malformed `spec`, and RangeError if it does not fit the shapes.
 */
export function einsum(spec: string, ...operands: readonly Tensor[]): Tensor {
  const { inputs, output, size } = parse(spec, checkTensors("einsum", operands));
  const neededAfter = (i: number): Set<string> =>
    new Set([...output, ...inputs.slice(i).flatMap((term) => term.labels)]);
  let result = reduceUnneeded(inputs[0]!, neededAfter(1));
  for (let i = 1; i < inputs.length; i++) {
    const next = reduceUnneeded(inputs[i]!, new Set([...neededAfter(i + 1), ...result.labels]));
    result = reduceUnneeded(contract(result, next, neededAfter(i + 1), size), neededAfter(i + 1));
  }
  return align(result, output);
}
