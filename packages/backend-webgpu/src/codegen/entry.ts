/** Assembles the text of a library kernel around its entry point. */
import type { Bindings } from "./bindings.ts";
import { grid, type Kernel, type Target } from "./target.ts";

/** The parts of a kernel: `main` is the entry point's body, with `group` the linear workgroup index. */
export interface Entry {
  readonly label: string;
  readonly groups: number;
  readonly size: readonly [number, number];
  /** Module-scope declarations: workgroup memory. */
  readonly shared?: readonly string[];
  readonly functions: readonly string[];
  readonly main: readonly string[];
  /** Directives for the optional WGSL features that the kernel uses, except those for the types of its operands. */
  readonly directives?: readonly string[];
  /** Further parameters of the entry point. */
  readonly parameters?: readonly string[];
}

const PARAMETERS = [
  "@builtin(workgroup_id) id: vec3<u32>",
  "@builtin(local_invocation_id) at: vec3<u32>",
  "@builtin(local_invocation_index) lane: u32",
];

/**
 * The kernel of an entry point. In its code, `at` is the invocation's position in the workgroup, and `lane` is that position
 * as one number.
 */
export function assemble(entry: Entry, bindings: Bindings, target: Target): Kernel {
  const groups = grid(entry.groups, target);
  const linear = groups[1] === 1 ? "id.x" : `id.x + id.y * ${groups[0]}u`;
  const surplus = groups[0] * groups[1] > entry.groups;
  const code = [
    ...(entry.directives ?? []),
    bindings.declare(),
    bindings.helpers.definitions(),
    bindings.elements.functions(),
    ...(entry.shared ?? []),
    ...entry.functions,
    `@compute @workgroup_size(${entry.size.join(", ")})`,
    `fn main(${[...PARAMETERS, ...(entry.parameters ?? [])].join(", ")}) {`,
    `  let group = ${linear};`,
    ...(surplus ? [`  if (group >= ${entry.groups}u) { return; }`] : []),
    ...entry.main.map((line) => `  ${line}`),
    "}",
  ];
  return {
    label: entry.label,
    code: code.filter((line) => line !== "").join("\n"),
    bindings: bindings.list(),
    scalars: bindings.scalars,
    groups,
  };
}
