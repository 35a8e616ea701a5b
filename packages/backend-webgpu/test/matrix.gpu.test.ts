/** Subgroup matrices: Dawn accepts the kernels, they compute the right results, and a device is checked before they are used. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { WebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, type DType, reference, type Tensor } from "@tiedlora/core";
import { skipF16 as skip } from "../../../test/support/gpu.ts";
import type { Kernel, MatrixShape } from "../src/codegen/target.ts";
import { CARD, DryBackend } from "./support/dry.ts";
import { emulatedGpu } from "./support/matrices.ts";

/** Shapes that Apple's, Intel's and NVIDIA's drivers offer. */
const SHAPES: readonly MatrixShape[] = [
  { m: 8, n: 8, k: 8 },
  { m: 8, n: 16, k: 16 },
  { m: 16, n: 16, k: 16 },
];

/** Small integers, exact in half precision, of which sums are exact in f32. */
const draw = (device: Device, shape: readonly number[], seed: number, dtype: DType = "f32"): Tensor => {
  const n = shape.reduce((a, d) => a * d, 1);
  const values = Array.from({ length: n }, (_, i) => (((i + 1) * (7919 + seed)) % 7) - 3);
  return device.tensor(values, { dtype }).reshape(shape);
};

const PRODUCTS: { readonly [name: string]: (device: Device) => Tensor } = {
  "of tiles that divide nothing": (d) => draw(d, [70, 45], 1).matmul(draw(d, [45, 75], 2)),
  "of whole tiles": (d) => draw(d, [128, 64], 1).matmul(draw(d, [64, 64], 2)),
  "in batches, transposed": (d) =>
    draw(d, [3, 40, 65], 1)
      .transpose()
      .matmul(draw(d, [3, 33, 40], 2).transpose()),
  "of half precision": (d) => draw(d, [64, 48], 1, "f16").matmul(draw(d, [48, 32], 2, "bf16")),
  "of two terms with an epilogue": (d) =>
    draw(d, [40, 32], 1)
      .matmul(draw(d, [32, 36], 2))
      .add(draw(d, [40, 16], 3).matmul(draw(d, [16, 36], 4)))
      .add(draw(d, [36], 5))
      .relu(),
};

const usesMatrices = ({ label }: Kernel | { label: string }): boolean => /\(matrix \d+x/.test(label);

const name = ({ m, n, k }: MatrixShape): string => `${m}x${n}x${k}`;

interface Dawn {
  create(flags: string[]): GPU;
}
const DAWN = "webgpu"; // the optional peer of the package
/** Dawn without any device, which validates all the same. It must stay referenced. */
const nowhere =
  skip === false
    ? ((await import(DAWN)) as Dawn).create(["backend=null", "enable-dawn-features=allow_unsafe_apis"])
    : undefined;

/** What Dawn says against each kernel; nothing where it accepts it. */
async function objections(kernels: readonly { label: string; code: string }[]): Promise<string[]> {
  const adapter = await nowhere!.requestAdapter();
  const features = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"];
  const gpu = await adapter!.requestDevice({ requiredFeatures: features as GPUFeatureName[] });
  const found: string[] = [];
  for (const { label, code } of kernels) {
    gpu.pushErrorScope("validation");
    gpu.createShaderModule({ label, code });
    const error = await gpu.popErrorScope();
    if (error) found.push(`${label}: ${error.message}`);
  }
  gpu.destroy();
  return found;
}

for (const matrix of SHAPES) {
  test(`${name(matrix)}: Dawn accepts the kernels`, { skip }, async () => {
    const dry = new DryBackend({ ...CARD, matmulPrecision: "f16", matrix });
    const device = new Device(dry);
    for (const make of Object.values(PRODUCTS)) await make(device).data();
    const kernels = dry.programs.flat().filter(usesMatrices);
    assert.equal(kernels.length, Object.keys(PRODUCTS).length);
    assert.deepEqual(await objections(kernels), []);

    const wrong = kernels.map(({ label, code }) => ({ label, code: code.replace("col_major", "major") }));
    assert.equal((await objections(wrong)).length, kernels.length, "nor does it accept anything");
  });

  test(`${name(matrix)}: exact products`, { skip }, async () => {
    const backend = await WebGpuBackend.on(await emulatedGpu(matrix));
    const [device, exact] = [new Device(backend), reference()];
    for (const [what, make] of Object.entries(PRODUCTS)) {
      let found: ArrayLike<number> = [];
      const kernels = await backend.profile(async () => void (found = await make(device).data()));
      assert.equal(kernels.filter(usesMatrices).length, 1, kernels.map(({ label }) => label).join());
      assert.deepEqual(Array.from(found), Array.from(await make(exact).data()), what);
    }
    for (const d of [device, exact]) d.close();
  });
}

test("a device that makes mistakes with subgroup matrices does without", { skip }, async () => {
  const faults: { readonly [what: string]: (code: string) => string } = {
    "a factor at the wrong place": (code) => code.replace("a.offset + k", "a.offset + 1u + k"),
    "a sum that starts anew": (code) => code.replace("var result = c;", "var result: Result;"),
    "no such function": (code) => code.replace("multiplyAccumulate(a0", "multiplyAccumulates(a0"),
  };
  for (const [what, spoil] of Object.entries(faults)) {
    const backend = await WebGpuBackend.on(await emulatedGpu(SHAPES[0]!, spoil));
    const device = new Device(backend);
    const kernels = await backend.profile(
      async () => void (await PRODUCTS["of whole tiles"]!(device).data()),
    );
    assert.equal(kernels.filter(usesMatrices).length, 0, what);
    assert.ok(
      kernels.some(({ label }) => label.includes("(tiled")),
      what,
    );
    device.close();
  }
});
