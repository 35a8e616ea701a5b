/** Tiles on a device: results are the same with each tile, and a kind of product is measured once. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebGpuBackend, WebGpuBackend } from "@tiedlora/backend-webgpu";
import { Device, key, type Tensor, uniformArray } from "@tiedlora/core";
import { skip } from "../../../test/support/gpu.ts";
import { openGpu } from "../src/device/open.ts";
import { tileName, TILES } from "../src/codegen/matmul/tiles.ts";

const draw = (device: Device, shape: readonly number[], seed: number): Tensor =>
  device.tensor(uniformArray(key(seed), shape.reduce((a, n) => a * n), -1, 1), { shape }); // prettier-ignore

const PRODUCTS: readonly ((device: Device) => Tensor)[] = [
  (d) => draw(d, [150, 37], 1).matmul(draw(d, [37, 141], 2)),
  (d) =>
    draw(d, [2, 64, 128], 1)
      .transpose()
      .matmul(draw(d, [2, 132, 64], 2).transpose()),
  (d) =>
    draw(d, [130, 20], 1)
      .matmul(draw(d, [20, 260], 2))
      .add(draw(d, [260], 3))
      .relu(),
];

test("every tile gives the same bits", { skip }, async () => {
  const results = new Map<string, Uint32Array[]>();
  for (const tile of TILES) {
    const gpu = await openGpu({ tuning: "hardware" });
    const backend = new WebGpuBackend({ ...gpu, target: { ...gpu.target, tile } });
    const device = new Device(backend);
    const bits: Uint32Array[] = [];
    for (const make of PRODUCTS) bits.push(new Uint32Array((await make(device).data()).buffer));
    if (gpu.device.features.has("timestamp-query")) {
      const kernels = await backend.profile(async () => void (await PRODUCTS[0]!(device).data()));
      const label = `(tiled ${tile.rows}x${tile.columns}x${tile.depth} by ${tile.own}x${tile.own})`;
      assert.ok(kernels[0]!.label.includes(label), `${kernels[0]!.label} is not ${label}`);
    }
    results.set(tileName(tile), bits);
    device.close();
  }
  const [first, ...others] = results;
  for (const [name, bits] of others) assert.deepEqual(bits, first![1], `${name} and ${first![0]}`);
});

test(
  "a tile is measured when the first large product comes, and known to later devices",
  { skip },
  async () => {
    const compiled: number[] = [];
    const measured: string[] = [];
    for (let i = 0; i < 2; i++) {
      const backend = await createWebGpuBackend({ tuning: "hardware", measure: true });
      const device = new Device(backend);
      await draw(device, [8, 8], 1)
        .matmul(draw(device, [8, 8], 2))
        .data();
      const before = backend.counters;
      const product = draw(device, [512, 32], 1).matmul(draw(device, [32, 512], 2));
      const found = await product.data();
      const after = backend.counters;
      assert.equal(found.length, 512 * 512);
      compiled.push(after.pipelines - before.pipelines);
      assert.equal(after.dispatches - before.dispatches, 1, "measuring is not counted as work");
      measured.push(backend.measuredTiles.get("512x32x512") ?? "none");
      device.close();
    }
    assert.ok(TILES.some((tile) => tileName(tile) === measured[0]), measured[0]); // prettier-ignore
    assert.equal(measured[1], measured[0]);
    assert.ok(compiled[0]! > TILES.length - 1, `${compiled[0]} pipelines`);
    assert.equal(compiled[1], 1, "the second device compiles one kernel");
  },
);

test("where rules know, and where it is not wanted, nothing is measured", { skip }, async () => {
  for (const options of [
    { tuning: "software", measure: true },
    { tuning: "hardware", measure: false },
  ] as const) {
    const backend = await createWebGpuBackend(options);
    const device = new Device(backend);
    await draw(device, [640, 32], 1)
      .matmul(draw(device, [32, 640], 2))
      .data();
    assert.equal(backend.counters.pipelines, 1);
    device.close();
  }
});
