/** Which modules a target selects: PEFT's rules for names, and the groups that are adapted as one. */
import { compilePattern, type Pattern, PatternWork } from "./regex/pattern.ts";
import type { LinearInfo } from "./linear-info.ts";

/** Whether `path` equals `suffix`, or ends in a dot and `suffix`: "proj" does not match "q_proj". */
export function endsWithName(path: string, suffix: string): boolean {
  return path === suffix || path.endsWith(`.${suffix}`);
}

/** Whether the whole of `path` matches, as with Python's re.fullmatch. */
export function fullMatch(path: string, pattern: RegExp | Pattern): boolean {
  if (!(pattern instanceof RegExp)) return pattern.fullMatch(path);
  const flags = pattern.flags.replace(/[gy]/g, "");
  return new RegExp(`^(?:${pattern.source})$`, flags).test(path);
}

/** The layer of a module: the first number in its path, or the number that follows the name `pattern`; null if there is none. */
export function layerOf(path: string, pattern?: string): number | null {
  const segments = path.split(".");
  for (let i = 1; i < segments.length - 1; i++) {
    if (/^\d+$/.test(segments[i]!) && (pattern === undefined || segments[i - 1] === pattern))
      return Number(segments[i]);
  }
  return null;
}

/** The type of a module: its path with "*" in place of the layer's number. */
export function typeOf(path: string): string {
  return path.replace(/(?<=\.)\d+(?=\.)/, "*");
}

type Matcher = (path: string) => boolean;

/**
 * Returns the test whether a key of peft's rank_pattern or alpha_pattern matches a path. The key is a name or a regular expression
 * that must match the whole path, or its end after a dot; one that starts with ^ must match the whole path.
 */
export function patternMatcher(key: string, work?: PatternWork): Matcher {
  // A file may list every module of a model, so names and whole paths are compared directly, without compiling a pattern.
  if (/^[\w.-]+$/.test(key)) return (path) => endsLike(path, key);
  if (/^\^(?:[\w-]|\\\.)+\$$/.test(key)) {
    const whole = key.slice(1, -1).replaceAll("\\.", ".");
    return (path) => path === whole;
  }
  const pattern = compilePattern(`(.*\\.)?(${key})`, work);
  return (path) => pattern.fullMatch(path);
}

/** Whether `path` equals `key`, or ends in a dot and `key`. A dot in `key` matches any character, as in a regular expression. */
function endsLike(path: string, key: string): boolean {
  const start = path.length - key.length;
  if (start < 0 || (start > 0 && path[start - 1] !== ".")) return false;
  for (let i = 0; i < key.length; i++) if (key[i] !== "." && key[i] !== path[start + i]) return false;
  return true;
}

const matchers = new WeakMap<Readonly<Record<string, number>>, (readonly [Matcher, number])[]>();

/** The value of the first key that matches `path`. */
export function patternValue(path: string, patterns: Readonly<Record<string, number>>): number | undefined {
  let list = matchers.get(patterns);
  if (list === undefined) {
    const work = new PatternWork();
    list = Object.entries(patterns).map(([key, value]) => [patternMatcher(key, work), value] as const);
    matchers.set(patterns, list);
  }
  return list.find(([matches]) => matches(path))?.[1];
}

/** Names of separate linears for queries, keys and values, in this order; the three are adapted as one target with one A. */
const QKV_SEPARATE = ["q_proj", "k_proj", "v_proj"] as const;
/** Names of a single linear that computes queries, keys and values. */
const QKV_FUSED: readonly string[] = ["c_attn", "query_key_value", "qkv_proj", "linear_qkv", "qkv"];

/** The groups of linears that compute queries, keys and values of one attention: one fused linear, or three linears. */
export function qkvGroups(linears: readonly LinearInfo[]): (readonly LinearInfo[])[] {
  const byPath = new Map(linears.map((linear) => [linear.path, linear]));
  return linears.flatMap((linear) => {
    const [parent, name] = splitPath(linear.path);
    if (QKV_FUSED.includes(name)) return [[linear]];
    if (name !== QKV_SEPARATE[0]) return [];
    const members = QKV_SEPARATE.map((member) => byPath.get(parent === "" ? member : `${parent}.${member}`));
    return members.every((member) => member !== undefined) ? [members] : [];
  });
}

/** The pairs of linears that compute gate and up of one MLP; both read the same input, so the two can be adapted as one target. */
export function gateUpGroups(linears: readonly LinearInfo[]): (readonly LinearInfo[])[] {
  const byPath = new Map(linears.map((linear) => [linear.path, linear]));
  return linears.flatMap((gate) => {
    const [parent, name] = splitPath(gate.path);
    const up = name === "gate_proj" ? byPath.get(parent === "" ? "up_proj" : `${parent}.up_proj`) : undefined;
    return up === undefined ? [] : [[gate, up]];
  });
}

/** The path of a group of linears: that of its only one, or their parent's path and the name of the group. */
export function groupPath(group: readonly LinearInfo[]): string {
  const first = group[0]!.path;
  if (group.length === 1) return first;
  const [parent, name] = splitPath(first);
  const own = name === "gate_proj" ? "gate_up" : "qkv";
  return parent === "" ? own : `${parent}.${own}`;
}

/** Splits a path into the path of the parent module and the name within it. */
export function splitPath(path: string): [parent: string, name: string] {
  const dot = path.lastIndexOf(".");
  return [path.slice(0, Math.max(dot, 0)), path.slice(dot + 1)];
}

/** The last segments of all paths, each once: the module names that an error lists. */
export function moduleNames(linears: readonly LinearInfo[]): string[] {
  return [...new Set(linears.map((linear) => splitPath(linear.path)[1]))];
}
