/**
 * Subgroup matrices without the hardware: the kernels that use them are rewritten with loops that do the same, so that
 * everything around them runs on any device.
 */
import { openGpu, type Gpu, type OpenOptions } from "../../src/device/open.ts";
import type { MatrixShape } from "../../src/codegen/target.ts";

/** A device whose subgroups multiply matrices of this shape; `spoil` changes the rewritten kernels. */
export async function emulatedGpu(
  shape: MatrixShape,
  spoil: (code: string) => string = (code) => code,
  options: OpenOptions = {},
): Promise<Gpu> {
  const gpu = await openGpu({ ...options, matmulPrecision: "f16", tuning: "hardware" });
  const { device, target } = gpu;
  const create = device.createShaderModule.bind(device);
  device.createShaderModule = (descriptor) =>
    create({ ...descriptor, code: spoil(emulated(descriptor.code, shape, target.subgroup)) });
  return { ...gpu, target: { ...target, matrix: shape } };
}

/**
 * A matrix of factors is where it was loaded from; of a result every lane holds its share of the elements. `P[0].x` is 0:
 * with it loops are not unrolled, which software drivers take long for.
 */
const definitions = ({ m, n, k }: MatrixShape, lanes: number): string => `
struct Loaded { offset: u32, stride: u32 }
alias Result = array<f32, ${(m * n) / lanes}>;
var<private> ownLane: u32;
fn multiplyAccumulate(a: Loaded, b: Loaded, c: Result) -> Result {
  var result = c;
  for (var i = 0u; i < ${(m * n) / lanes}u + P[0].x; i++) {
    let e = i * ${lanes}u + ownLane;
    for (var k = 0u; k < ${k}u + P[0].x; k++) {
      let left = rowTile[a.offset + k * a.stride + e / ${n}u];
      result[i] += f32(left) * f32(columnTile[b.offset + k * b.stride + e % ${n}u]);
    }
  }
  return result;
}
fn store(offset: u32, c: Result, stride: u32) {
  for (var i = 0u; i < ${(m * n) / lanes}u + P[0].x; i++) {
    let e = i * ${lanes}u + ownLane;
    results[offset + (e / ${n}u) * stride + e % ${n}u] = c[i];
  }
}
`;

/** The kernel in WGSL without the extension. */
function emulated(code: string, shape: MatrixShape, lanes: number): string {
  const { m, n, k } = shape;
  if (!code.includes("subgroup_matrix")) return code;
  const plain = code
    .replace("enable chromium_experimental_subgroup_matrix;\n", "")
    .replaceAll(`subgroupMatrixLoad<subgroup_matrix_left<f16, ${k}, ${m}>, col_major>(&rowTile, `, "Loaded(")
    .replaceAll(
      `subgroupMatrixLoad<subgroup_matrix_right<f16, ${n}, ${k}>, row_major>(&columnTile, `,
      "Loaded(",
    )
    .replaceAll(`subgroup_matrix_result<f32, ${n}, ${m}>`, "Result")
    .replaceAll("subgroupMatrixMultiplyAccumulate", "multiplyAccumulate")
    .replaceAll("subgroupMatrixStore<row_major>(&results, ", "store(")
    .replace("@compute", `${definitions(shape, lanes)}@compute`)
    .replace(/fn main\(.*\n/, (line) => `${line}  ownLane = lane % ${lanes}u;\n`);
  if (/subgroup_?matrix/i.test(plain)) throw new Error(`a use of the extension was left:\n${plain}`);
  return plain;
}
