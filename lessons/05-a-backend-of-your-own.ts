/**
 * Lesson 5. A backend of your own.    npx tsx --conditions=@tiedlora/source lessons/05-a-backend-of-your-own.ts
 *
 * Lesson 4 watched what a backend is given: kernels, each a few loops over straight-line code. Here we turn them into
 * JavaScript source and let the engine compile it. That is a complete backend, products and attention included, because core
 * lowers everything that we do not claim to accelerate to such loops. The backends for WebAssembly and WebGPU do the same, in
 * other languages. At the end, the conformance suite, which every backend must pass, judges ours.
 */
import { type Backend, Device, type DeviceBuffer, type DType, type Instr, type LoopKernel, type Operand, operandsOf } from "@tiedlora/core"; // prettier-ignore
import { conformance } from "@tiedlora/test";

// --- 1. Memory: bytes that can be written, read and freed. We count them.

const memory = { liveBytes: 0, peakBytes: 0 };

class Memory implements DeviceBuffer {
  readonly bytes: number;
  readonly content: ArrayBuffer;
  constructor(bytes: number) {
    this.bytes = bytes;
    this.content = new ArrayBuffer(bytes);
    memory.liveBytes += bytes;
    memory.peakBytes = Math.max(memory.peakBytes, memory.liveBytes);
  }
  write(data: ArrayBufferView, offset = 0): void {
    new Uint8Array(this.content, offset).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  read(offset = 0, bytes: number = this.bytes - offset): Promise<ArrayBuffer> {
    return Promise.resolve(this.content.slice(offset, offset + bytes));
  }
  free(): void {
    memory.liveBytes -= this.bytes;
  }
}

// --- 2. What operations mean, as JavaScript. f32 is rounded, integers wrap, bool is 0 or 1; erf is a series without cancellation.

const PRELUDE = `const { ${Object.getOwnPropertyNames(Math).join(", ")} } = Math, neg = (x) => -x, recip = (x) => 1 / x, rsqrt = (x) => 1 / sqrt(x);
const f32_i32 = (x) => min(max(x, -(2 ** 31)), 2 ** 31 - 1) | 0, f32_u32 = (x) => min(max(x, 0), 2 ** 32 - 1) >>> 0;
function erf(x) {
  if (!(abs(x) < 6)) return x > 0 ? 1 : x < 0 ? -1 : x;
  let term = 1, sum = 1;
  for (let n = 1; term > 1e-17 * sum; n++) sum += term *= 2 * x * x / (2 * n + 1);
  return 2 * x / sqrt(Math.PI) * exp(-x * x) * sum;
}
`;
const round = (code: string, dtype: DType): string =>
  dtype === "i32" ? `(${code}) | 0` : dtype === "u32" ? `(${code}) >>> 0` : dtype === "bool" ? `+(${code})` : `fround(${code})`; // prettier-ignore
const INFIX: Record<string, string> = {
  add: "+", sub: "-", mul: "*", div: "/", mod: "%", and: "&", or: "|", xor: "^", shl: "<<", shr: ">>", lt: "<", le: "<=", eq: "===",
}; // prettier-ignore

/** The element of an operand at (i0, i1, …), and the condition for it to exist, which is false in the padding. */
function place({ buffer, dtype, view }: Operand): { element: string; exists: string } {
  const inside = (view.valid ?? []).flatMap((r, i) => (r ? [`i${i} >= ${r[0]} && i${i} < ${r[1]}`] : []));
  const moving = (view.moving ?? []).map(({ slot, factor }) => `${factor} * scalars[${slot}]`);
  const steps = [view.offset, ...moving, ...view.strides.map((s, axis) => s && `${s} * i${axis}`)];
  return { element: `${dtype}[${buffer}][${steps.join(" + ")}]`, exists: inside.join(" && ") || "true" };
}

function expression(instr: Instr, body: readonly Instr[] = []): string {
  const { op, dtype } = instr;
  if (op === "const") return round(Object.is(instr.value, -0) ? "-0" : `${instr.value}`, dtype);
  if (op === "scalar") return round(`scalars[${instr.slot}]`, dtype);
  if (op === "index") return `i${instr.axis}`;
  if (op === "load") return `${place(instr.from).exists} ? ${place(instr.from).element} : 0`;
  if (op === "where") return `v${instr.a} ? v${instr.b} : v${instr.c}`;
  const saturates = op === "cast" && body[instr.a]?.dtype === "f32" && dtype !== "f32" && dtype !== "bool";
  if (op === "cast") return saturates ? `f32_${dtype}(v${instr.a})` : round(`v${instr.a}${dtype === "bool" ? " !== 0" : ""}`, dtype); // prettier-ignore
  if (op === "not") return round(dtype === "bool" ? `!v${instr.a}` : `~v${instr.a}`, dtype);
  const operands = operandsOf(instr).map((i) => `v${i}`);
  const name = op === "mul" && dtype !== "f32" ? "imul" : op;
  const infix = op === "shr" && dtype === "u32" ? ">>>" : INFIX[name];
  return round(infix ? operands.join(infix) : `${name}(${operands.join(", ")})`, dtype);
}

// --- 3. A kernel: loops over the outer axes, and in them one pass over the inner axes per reduction, and one for the stores.

const FOLD = { sum: "add", prod: "mul", max: "max", min: "min" } as const;
const NEUTRAL = { sum: 0, prod: 1, max: -Infinity, min: Infinity };
function kernelSource({ outer, inner, body, stores }: LoopKernel): string {
  const loops = (lengths: readonly number[], first: number, inside: string): string =>
    `${lengths.map((n, k) => `for (let i${first + k} = 0; i${first + k} < ${n}; i${first + k}++) `).join("")}{ ${inside} }\n`;
  /** The code of some values and of the values that they need; reductions are already variables. */
  const code = (values: readonly number[]): string => {
    const needed = new Set<number>();
    const visit = (i: number): void => {
      if (needed.has(i) || body[i]!.op === "reduce") return;
      operandsOf(body[i]!).forEach(visit);
      needed.add(i); // operands come first
    };
    values.forEach(visit);
    return [...needed].map((i) => `const v${i} = ${expression(body[i]!, body)};`).join(" ");
  };
  const reductions = body.map((instr, i) => {
    if (instr.op !== "reduce") return "";
    const fold = expression({ op: FOLD[instr.kind], a: i, b: instr.a, dtype: instr.dtype });
    const pass = loops(inner, outer.length, `${code([instr.a])} v${i} = ${fold};`);
    return `let v${i} = ${NEUTRAL[instr.kind]}; ${pass}`;
  });
  /** The stores whose views have `rank` axes: once per row, or for every element. */
  const write = (rank: number): string => {
    const list = stores.filter(({ to }) => to.view.strides.length === rank);
    const lines = list.map(({ to, value }) => `if (${place(to).exists}) ${place(to).element} = v${value};`);
    return `{ ${code(list.map(({ value }) => value))} ${lines.join(" ")} }`;
  };
  const each = loops(inner, outer.length, inner.length > 0 ? write(outer.length + inner.length) : "");
  return loops(outer, 0, reductions.join("") + each + write(outer.length));
}

// --- 4. The backend: a program becomes one function of its buffers, each seen as an array of every type.

const javascript = (): Backend => ({
  name: "javascript",
  caps: { dtypes: new Set<DType>(["f32", "i32", "u32", "bool"]), maxOperands: 16, maxBufferBytes: 2 ** 30 },
  alloc: (bytes) => new Memory(bytes),
  accelerates: () => false, // products, attention and lookups come as loops
  compile: ({ buffers, steps }) => {
    const source = PRELUDE + steps.map((step) => kernelSource(step as LoopKernel)).join("");
    // oxlint-disable-next-line no-new-func, no-implied-eval -- we have just written this source
    const run = new Function("f32", "i32", "u32", "bool", "scalars", source);
    const temps = buffers.map(({ kind, bytes }) => new Memory(kind === "temp" ? bytes : 0));
    return {
      tempBytes: temps.reduce((sum, { bytes }) => sum + bytes, 0),
      run: (inputs, outputs, scalars) => {
        const given = { input: [...inputs], output: [...outputs] };
        const content = buffers.map(({ kind }, i) => (kind === "temp" ? temps[i]! : (given[kind].shift() as Memory)).content); // prettier-ignore
        const as = <T>(View: new (bytes: ArrayBuffer) => T): T[] => content.map((bytes) => new View(bytes));
        run(as(Float32Array), as(Int32Array), as(Uint32Array), as(Uint32Array), scalars);
      },
      free: () => temps.forEach((temp) => temp.free()),
    };
  },
  sync: () => Promise.resolve(),
  memory: () => memory,
  close: () => {},
});

// --- 5. The verdict: every operation forward and backward, random kernels and graphs, training, within error bounds.

const suite = conformance(({ fusion }) => new Device(javascript(), { fusion }), { subset: "core" });
const failures: string[] = [];
for (const { name, run } of suite.cases)
  await run().catch((error: unknown) => failures.push(`${name}: ${String(error)}`));
await suite.close();
console.log(
  `  ${suite.cases.length - failures.length} of ${suite.cases.length} cases of the suite's core pass`,
);
if (failures.length > 0) throw new Error(failures.slice(0, 3).join("\n\n"));
