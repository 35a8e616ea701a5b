/** Failures of a GPU end promptly, in a named error that says what to do. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join, resolve } from "node:path";
import { test } from "node:test";
import {
  createWebGpuBackend,
  DeviceClosedError,
  DeviceLostError,
  type OpenOptions,
  OutOfMemoryError,
  ShaderError,
  type WebGpuBackend,
} from "@tiedlora/backend-webgpu";
import { Device, type DeviceBuffer, type Instr, type Operand, type Program } from "@tiedlora/core";
import { skip } from "../../../test/support/gpu.ts";
import { PipelineCache } from "../src/device/pipelines.ts";

/** A case that takes longer than this counts as hanging. */
const options = { skip, timeout: 120_000 };

const CHILD = join(import.meta.dirname, "support/child.ts");

interface Outcome {
  readonly code: number | null;
  readonly out: string;
}

/** Runs a case of support/child.ts in a process of its own, and resolves when that ends. */
function child(name: string, env: NodeJS.ProcessEnv = {}): Promise<Outcome & { readonly err: string }> {
  const flags = ["--expose-gc", "--import=tsx", "--conditions=@tiedlora/source"];
  const cwd = resolve(import.meta.dirname, "../../..");
  return new Promise((done) => {
    const node = spawn(process.execPath, [...flags, CHILD, name], {
      cwd,
      env: { ...process.env, ...env },
      timeout: 100_000,
    });
    let [out, err] = ["", ""];
    node.stdout.on("data", (text: Buffer) => (out += text.toString()));
    node.stderr.on("data", (text: Buffer) => (err += text.toString()));
    node.on("close", (code) => done({ code, out: out.trim(), err }));
  });
}

/** What a child printed, if it ended well; otherwise its errors. */
async function outputOf(name: string): Promise<string> {
  const { code, out, err } = await child(name);
  assert.equal(code, 0, err);
  return out;
}

async function withBackend(f: (backend: WebGpuBackend) => Promise<void>): Promise<void> {
  const backend = await createWebGpuBackend();
  try {
    await f(backend);
  } finally {
    backend.close();
  }
}

test("after close() Node exits by itself", options, async () => {
  assert.equal(await outputOf("compute and close"), "14");
});

test("close() rejects what is pending, and Node exits", options, async () => {
  assert.equal(await outputOf("close with a read pending"), "DeviceClosedError");
});

test("an unhandled error ends Node, with a device open", options, async () => {
  const { code, err } = await child("an error without close");
  assert.equal(code, 1);
  assert.match(err, /unhandled/);
});

test("without an adapter the error says which package has one", options, async () => {
  const none = "/nonexistent.json";
  const { code, out } = await child("no adapter", { VK_DRIVER_FILES: none, VK_ICD_FILENAMES: none });
  assert.equal(code, 0);
  assert.match(out, /^NoAdapterError: .*apt install libvulkan1 mesa-vulkan-drivers/);
});

test("200 devices, one after another, neither crash nor grow", options, async () => {
  const [half, all] = (await outputOf("200 devices")).split("\n").map(Number);
  assert.ok(all! < half! + 20, `${half} MB after 100 devices, ${all} MB after 200`);
});

test("garbage collection does not take Dawn away", options, async () => {
  assert.equal(await outputOf("collections while computing"), "66");
});

test("a lost device rejects what is pending and what follows", options, async () => {
  await withBackend(async (backend) => {
    const device = new Device(backend);
    const x = device.tensor([1, 2, 3]);
    await x.sum().item();
    const pending = x.square().sum().item();
    backend.device.destroy(); // as the driver does it
    await assert.rejects(pending, DeviceLostError);
    await assert.rejects(x.mul(2).sum().item(), (error: Error) => {
      assert.ok(error instanceof DeviceLostError);
      assert.match(error.message, /Open a new device with webgpu\(\)/);
      return true;
    });
    await assert.rejects(device.sync(), DeviceLostError);
  });
});

test("a closed device says so", options, async () => {
  const backend = await createWebGpuBackend();
  const buffer = backend.alloc(16);
  backend.close();
  backend.close(); // harmless
  assert.throws(() => backend.alloc(16), DeviceClosedError);
  await assert.rejects(backend.sync(), /open a new one with webgpu\(\)/);
  await assert.rejects(buffer.read(), DeviceClosedError);
});

test("a buffer beyond the device's largest is refused at once", options, async () => {
  await withBackend(async (backend) => {
    assert.throws(() => backend.alloc(backend.caps.maxBufferBytes + 16), OutOfMemoryError);
    const device = new Device(backend);
    assert.equal(await device.tensor([1, 2]).sum().item(), 3);
  });
});

test(
  "memory that the device does not have is reported by the next read; afterwards the device works",
  options,
  async () => {
    await withBackend(async (backend) => {
      const before = backend.pool.heldBytes;
      const held: DeviceBuffer[] = [];
      const exhaust = async (): Promise<void> => {
        // software adapters refuse the first, graphics cards the last
        for (let i = 0; i < 256; i++) {
          held.push(backend.alloc(backend.caps.maxBufferBytes - 16));
          await backend.sync();
        }
      };
      await assert.rejects(exhaust(), (error: Error) => {
        assert.ok(error instanceof OutOfMemoryError, String(error));
        assert.match(error.message, /use a smaller batch, checkpointing/);
        return true;
      });
      for (const buffer of held) buffer.free();
      assert.ok(backend.pool.heldBytes <= before + (64 << 20), "a refused buffer is not kept for reuse");
      assert.equal(await new Device(backend).tensor([1, 2]).sum().item(), 3);
    });
  },
);

test(
  "a kernel that does not compile is named, with its source; afterwards the device works",
  options,
  async () => {
    await withBackend(async (backend) => {
      const kernel = {
        label: "nonsense",
        code: "@compute @workgroup_size(1) fn main() { let x: u32 = 1.5f; }",
        bindings: [],
        scalars: [],
        sizes: [],
        groups: [1, 1, 1],
      } as const;
      await assert.rejects(new PipelineCache(backend.device).get(kernel), (error: Error) => {
        assert.ok(error instanceof ShaderError);
        assert.match(error.message, /^the kernel "nonsense" did not compile/);
        assert.match(error.message, /cannot convert|cannot initialize/);
        assert.equal(error.code, kernel.code);
        return true;
      });
      assert.equal(await new Device(backend).tensor([1, 2]).sum().item(), 3);
    });
  },
);

/** A program that doubles its first input into its output and, in place, the second, by way of `bytes` bytes of memory. */
function doubling(bytes: number): Program {
  const at = (buffer: number): Operand => ({ buffer, dtype: "f32", view: { offset: 0, strides: [1] } });
  const load = (buffer: number): Instr => ({ op: "load", from: at(buffer), dtype: "f32" });
  const twice: Instr = { op: "add", a: 0, b: 0, dtype: "f32" };
  const loop = { type: "loop", outer: [4], inner: [] } as const;
  return {
    scalars: 0,
    buffers: [
      { kind: "input", bytes: 16 },
      { kind: "temp", bytes },
      { kind: "output", bytes: 16 },
      { kind: "output", bytes: 16, aliasOf: 0 },
    ],
    steps: [
      { ...loop, body: [load(0)], stores: [{ to: at(1), value: 0 }] },
      { ...loop, body: [load(1), twice], stores: [2, 0].map((b) => ({ to: at(b), value: 1 })) },
    ],
  };
}

const values = async (buffer: DeviceBuffer): Promise<number[]> =>
  Array.from(new Float32Array(await buffer.read()));

test(
  "a program without memory for its temporaries has not happened, and says so as often as it is asked",
  options,
  async () => {
    await withBackend(async (backend) => {
      const [weight, result] = [backend.alloc(16), backend.alloc(16)];
      weight.write(Float32Array.of(1, 2, 3, 4));
      const run = async (bytes: number): Promise<void> => {
        const executable = await backend.compile(doubling(bytes));
        executable.run([weight], [result, weight], new Float64Array());
        executable.run([weight], [result, weight], new Float64Array());
        await backend.sync().finally(() => executable.free());
      };
      await run(16);
      assert.deepEqual(await values(result), [4, 8, 12, 16]);

      await assert.rejects(run(backend.caps.maxBufferBytes - 15), OutOfMemoryError);
      for (let i = 0; i < 2; i++) await assert.rejects(values(result), OutOfMemoryError);
      assert.deepEqual(await values(weight), [4, 8, 12, 16], "the update has not happened");
      await backend.sync(); // it was reported

      const next = backend.alloc(16);
      const small = await backend.compile(doubling(16));
      assert.throws(() => small.run([result], [next, result], new Float64Array()), OutOfMemoryError);
      small.run([weight], [next, weight], new Float64Array());
      assert.deepEqual(await values(next), [8, 16, 24, 32]);
      result.write(Float32Array.of(1, 1, 1, 1));
      assert.deepEqual(await values(result), [1, 1, 1, 1], "written anew, it is good again");
    });
  },
);

test("what was computed from a buffer without memory is not to be had either", options, async () => {
  await withBackend(async (backend) => {
    const weight = backend.alloc(16);
    weight.write(Float32Array.of(1, 2, 3, 4));
    const device = new Device(backend);
    const [small, large] = [await backend.compile(doubling(16)), await backend.compile(doubling(32))];
    const [held, one, two] = [
      backend.alloc(backend.caps.maxBufferBytes - 15),
      backend.alloc(16),
      backend.alloc(16),
    ];
    small.run([held], [one, held], new Float64Array()); // both before anything is known
    large.run([one], [two, one], new Float64Array());
    await assert.rejects(values(two), OutOfMemoryError);
    await assert.rejects(values(one), OutOfMemoryError);
    held.free();
    await backend.sync().catch(() => {});
    assert.deepEqual(await values(weight), [1, 2, 3, 4]);
    assert.equal(await device.tensor([1, 2]).sum().item(), 3);
  });
});

test("a program that cannot have one of its temporaries keeps none of them", options, async () => {
  await withBackend(async (backend) => {
    const before = backend.memory().liveBytes;
    await assert.rejects(backend.compile(doubling(backend.caps.maxBufferBytes + 16)), OutOfMemoryError);
    assert.equal(backend.memory().liveBytes, before);
  });
});

test("an option with a value that it does not have is refused", options, async () => {
  const wrong = { variant: "plane" } as unknown as OpenOptions;
  await assert.rejects(createWebGpuBackend(wrong), {
    name: "TypeError",
    message: 'webgpu: variant is "plane", which is none of "auto", "plain"',
  });
});
