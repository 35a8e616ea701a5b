/** Named errors for what can go wrong with a GPU; their messages say what to do. */

/** Any failure of the WebGPU backend. */
export class WebGpuError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No adapter, or no WebGPU at all. */
export class NoAdapterError extends WebGpuError {}

/** The adapter lacks an optional feature that was asked for. */
export class MissingFeatureError extends WebGpuError {}

/** The device is gone (driver reset, GPU removed, destroyed by other code), and its content is lost with it. */
export class DeviceLostError extends WebGpuError {}

/** The device was closed by `close()`. */
export class DeviceClosedError extends WebGpuError {}

/** An allocation that the device refused. */
export class OutOfMemoryError extends WebGpuError {}

/** A kernel that the WGSL compiler or the driver rejected: a bug of this package or of the driver. */
export class ShaderError extends WebGpuError {
  /** The kernel's source. */
  readonly code: string;

  constructor(message: string, code: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    Object.defineProperty(this, "code", { enumerable: false }); // the message includes it, so consoles would show it twice
  }
}

const bytes = (n: number): string => (n >= 1 << 20 ? `${(n / (1 << 20)).toFixed(1)} MiB` : `${n} bytes`);

export function tooLarge(size: number, limit: number): OutOfMemoryError {
  return new OutOfMemoryError(
    `a buffer of ${bytes(size)} was asked for, but this device's largest is ${bytes(limit)}; ` +
      "use half precision for frozen weights, a smaller model or batch, or another device",
  );
}

export function outOfMemory(live: number, detail: string): OutOfMemoryError {
  return new OutOfMemoryError(
    `the device is out of memory with ${bytes(live)} in use by this backend; use a smaller batch, checkpointing, ` +
      `half precision for frozen weights, or free tensors that are held (${detail.trim().split("\n")[0]})`,
  );
}

/**
 * A ShaderError. `cause` is the rejection of the pipeline; its `reason` is "validation" for invalid WGSL, "internal" for a
 * driver that gave up.
 */
export function shaderError(label: string, code: string, message: string, cause: unknown): ShaderError {
  const isDriver = (cause as { readonly reason?: string }).reason === "internal";
  const what = isDriver
    ? "was given up by the driver, which may be out of memory; if it happens again, please report it"
    : "did not compile; please report it";
  return new ShaderError(
    `the kernel "${label}" ${what} together with the adapter's name:\n${message}\n--- source\n${code}`,
    code,
    { cause },
  );
}

export function deviceLost(reason: string, message: string): DeviceLostError {
  return new DeviceLostError(
    `the GPU device was lost (${reason}: ${message.trim() || "no details"}); its tensors are gone. ` +
      "Open a new device with webgpu() and load the model again from a checkpoint",
  );
}
