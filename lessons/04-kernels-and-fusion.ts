/**
 * Lesson 4. Kernels and fusion.
 *
 *   npx tsx --conditions=@tiedlora/source lessons/04-kernels-and-fusion.ts
 *
 * A processor multiplies numbers faster than memory delivers them. If every operation of exp(2x) + 1 read its input from memory
 * and wrote its result back, most of the time would go into moving intermediate results. Fusion makes one loop of the
 * operations: each element is loaded once, goes through all of them in registers, and is stored once. To see this, we write
 * `explain`: a backend is an interface, so a wrapper around one sees every program that the backend is given.
 */
import {
  type Backend,
  Device,
  grad,
  key,
  type Program,
  ReferenceBackend,
  type Step,
  type Tensor,
} from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import * as optim from "@tiedlora/nn/optim";

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
  console.log(`  ok: ${what}`);
}

/** A device that keeps every program that it is asked to compile. */
function watched(fusion: "on" | "off"): { device: Device; programs: Program[] } {
  const programs: Program[] = [];
  const inner = new ReferenceBackend();
  const backend: Backend = {
    name: "watched",
    caps: inner.caps,
    alloc: (bytes) => inner.alloc(bytes),
    accelerates: (call) => inner.accelerates(call),
    compile: (program) => {
      programs.push(program);
      return inner.compile(program);
    },
    sync: () => inner.sync(),
    memory: () => inner.memory(),
    close: () => inner.close(),
  };
  return { device: new Device(backend, { fusion }), programs };
}

/** One line per step: the space over which it loops, and what it does there. */
function line(step: Step): string {
  if (step.type === "library") return `${step.name}(${JSON.stringify(step.params)})`;
  const body = step.body
    .map((instr) => (instr.op === "reduce" ? `reduce ${instr.kind}` : instr.op))
    .join(", ");
  const inner = step.inner.length > 0 ? `, in each [${step.inner.join(", ")}]` : "";
  return `for each of [${step.outer.join(", ")}]${inner}: ${body}; ${step.stores.length} stored`;
}

/** The steps that compute `f(x)` for an x of `shape`, and the bytes of memory for results between them. */
async function explain(
  f: (x: Tensor) => Tensor,
  shape: readonly number[],
  fusion: "on" | "off" = "on",
): Promise<{ steps: readonly Step[]; temporaries: number }> {
  const { device, programs } = watched(fusion);
  const size = shape.reduce((a, b) => a * b, 1);
  const x = device.tensor(
    Float32Array.from({ length: size }, (_, i) => Math.sin(i)),
    { shape },
  );
  await f(x).data();
  device.close();
  const { steps, buffers } = programs.at(-1)!;
  console.log(`  fusion ${fusion}: ${steps.length} kernel${steps.length === 1 ? "" : "s"}`);
  for (const step of steps.slice(0, 6)) console.log(`    ${line(step).slice(0, 140)}`);
  if (steps.length > 6) console.log(`    and ${steps.length - 6} more`);
  return {
    steps,
    temporaries: buffers.reduce((sum, { kind, bytes }) => sum + (kind === "temp" ? bytes : 0), 0),
  };
}

// --- 1. Elementwise operations become one loop, and the results between them need no memory.

console.log("gelu: x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2");
const gelu = (x: Tensor): Tensor => x.gelu("tanh");
const fused = await explain(gelu, [64, 32]);
const apart = await explain(gelu, [64, 32], "off");
expect(fused.steps.length === 1, "fused, it is one kernel");
expect(apart.steps.length >= 6, "unfused, every operation has a kernel of its own");
expect(fused.temporaries === 0 && apart.temporaries > 0, "fused, nothing between the operations is stored");

// --- 2. Reductions join in. Softmax needs the largest element of a row, then a sum over it: one kernel per row.

console.log("softmax over rows");
const softmax = await explain((x) => x.softmax(), [64, 32]);
const [kernel] = softmax.steps;
const reductions = kernel?.type === "loop" ? kernel.body.filter(({ op }) => op === "reduce") : [];
expect(softmax.steps.length === 1 && reductions.length === 2, "one kernel with two reductions, max and sum");

console.log("a layer norm and its gradient");
const backward = await explain((x) => grad(nn.layerNorm(x).square().sum(), [x])[0]!, [64, 32]);
expect(backward.steps.length === 1, "even the gradient of a norm is one kernel per row");

// --- 3. Movement costs nothing: a transposed or sliced tensor is read in place, with other strides.

console.log("a transpose, a slice and a flip on the way");
const moved = await explain((x) => x.transpose().slice([0, 16]).flip(0).mul(3), [64, 32]);
expect(moved.steps.length === 1, "none of them copies");

// --- 4. A matrix product is left to a kernel that the backend has tuned by hand; the operations after it are fused as usual.

console.log("a layer: relu(x w + b)");
const { device, programs } = watched("on");
const layer = nn.Linear.init(32, 16, { device, key: key(1) });
await layer.forward(device.tensor(new Float32Array(64 * 32).fill(0.1), { shape: [64, 32] })).relu().data(); // prettier-ignore
const [matmul, ...rest] = programs.at(-1)!.steps;
for (const step of [matmul!, ...rest]) console.log(`    ${line(step).slice(0, 140)}`);
expect(
  matmul?.type === "library" && rest.length <= 1,
  "one product, and at most one kernel for bias and relu",
);

// --- 5. A whole training step is one program: forward, backward, and the update of every parameter.

console.log("a training step of two layers");
const mlp = nn.MLP.init(8, 16, { device, key: key(2) });
const optimizer = optim.adamW(mlp.parameters(), { lr: 0.01 });
const before = programs.length;
for (let i = 0; i < 3; i++) {
  optimizer.step(mlp.forward(device.tensor([[1, 2, 3, 4, 5, 6, 7, i]])).square().mean()); // prettier-ignore
  await device.sync();
}
expect(programs.length === before + 1, "three steps compiled one program");
console.log(`    it has ${programs.at(-1)!.steps.length} kernels for ${mlp.parameters().length} parameters`);
device.close();
