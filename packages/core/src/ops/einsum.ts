/** Einstein summation over any number of operands, by permutation, broadcasting and matmul. */
import { matmul, mul, permute, reshape, sum } from "../build.ts";
import type { Node } from "../node.ts";
import { product, show } from "../shape.ts";

interface Labelled {
  readonly node: Node;
  readonly labels: readonly string[];
}

function parse(
  spec: string,
  operands: readonly Node[],
): { inputs: Labelled[]; output: string[]; size: Map<string, number> } {
  const match = /^([a-zA-Z,]*)->([a-zA-Z]*)$/.exec(spec.replaceAll(" ", ""));
  const terms = match?.[1]!.split(",") ?? [];
  if (!match || terms.length !== operands.length) {
    throw new SyntaxError(
      `einsum: "${spec}" with ${operands.length} tensors; write e.g. "bij,bjk->bik", one term per tensor`,
    );
  }
  const size = new Map<string, number>();
  const inputs = operands.map((node, i): Labelled => {
    const labels = terms[i]!.split("");
    if (labels.length !== node.shape.length || new Set(labels).size !== labels.length) {
      throw new RangeError(`einsum: term "${terms[i]}" must name each axis of ${show(node.shape)} once`);
    }
    labels.forEach((label, axis) => {
      const length = node.shape[axis]!;
      if ((size.get(label) ?? length) !== length) {
        throw new RangeError(
          `einsum: "${label}" is ${size.get(label)} in one tensor and ${length} in another`,
        );
      }
      size.set(label, length);
    });
    return { node, labels };
  });
  const output = match[2]!.split("");
  const unknown = output.filter((label) => !size.has(label));
  if (unknown.length > 0)
    throw new RangeError(`einsum: "${unknown.join("")}" of the result is in no term of "${spec}"`);
  return { inputs, output, size };
}

/** The axes of `x` in the order of `labels`, with length 1 where it has none. */
function align({ node, labels }: Labelled, order: readonly string[]): Node {
  const present = order.filter((label) => labels.includes(label));
  const moved = permute(
    node,
    present.map((label) => labels.indexOf(label)),
  );
  return reshape(
    moved,
    order.map((label) => (labels.includes(label) ? node.shape[labels.indexOf(label)]! : 1)),
  );
}

/** Sums out what neither the other operands nor the result need. */
function reduceUnneeded(x: Labelled, needed: ReadonlySet<string>): Labelled {
  const axes = x.labels.flatMap((label, i) => (needed.has(label) ? [] : [i]));
  if (axes.length === 0) return x;
  const labels = x.labels.filter((label) => needed.has(label));
  const node = reshape(
    sum(x.node, axes),
    labels.map((label) => x.node.shape[x.labels.indexOf(label)]!),
  );
  return { node, labels };
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
  if (inner.length === 0) return { node: mul(align(a, labels), align(b, labels)), labels };
  const [m, k, n] = [left, inner, right].map((group) => product(lengths(group)));
  const x = reshape(align(a, [...batch, ...left, ...inner]), [...lengths(batch), m!, k!]);
  const y = reshape(align(b, [...batch, ...inner, ...right]), [...lengths(batch), k!, n!]);
  return { node: reshape(matmul(x, y), lengths(labels)), labels };
}

/** E.g. `einsum("bij,bjk->bik", [x, y])`. Contracts from left to right. */
export function einsum(spec: string, operands: readonly Node[]): Node {
  const { inputs, output, size } = parse(spec, operands);
  const neededAfter = (i: number): Set<string> =>
    new Set([...output, ...inputs.slice(i).flatMap((x) => x.labels)]);
  let result = reduceUnneeded(inputs[0]!, neededAfter(1));
  for (let i = 1; i < inputs.length; i++) {
    const next = reduceUnneeded(inputs[i]!, new Set([...neededAfter(i + 1), ...result.labels]));
    result = reduceUnneeded(contract(result, next, neededAfter(i + 1), size), neededAfter(i + 1));
  }
  return align(result, output);
}
