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
  const linear = groups[1] === 1 ? "id.x" : `id.x + id.y * ${bindings.sizes.of("groups", groups[0])}`;
  // one dimension has none to spare
  const surplus =
    groups[1] > 1 ? [`if (group >= ${bindings.sizes.of("group", entry.groups)}) { return; }`] : [];
  const main = [`let group = ${linear};`, ...surplus, ...entry.main];
  const code = [
    ...(entry.directives ?? []),
    bindings.declare(),
    bindings.helpers.definitions(),
    bindings.elements.functions(),
    ...(entry.shared ?? []),
    ...entry.functions.map((text) => bindings.functions(text)),
    `@compute @workgroup_size(${entry.size.join(", ")})`,
    `fn main(${[...PARAMETERS, ...(entry.parameters ?? [])].join(", ")}) {`,
    ...bindings.entry(main).map((line) => `  ${line}`),
    "}",
  ];
  return {
    label: entry.label,
    code: code.filter((line) => line !== "").join("\n"),
    ...bindings.describe(),
    groups,
  };
}
