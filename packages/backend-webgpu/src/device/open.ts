/**
 * Finding a GPU: `navigator.gpu` in browsers, Dawn (npm package "webgpu") in Node. The only module that knows the
 * difference; what it returns is a device with the limits and features that the backend uses.
 */
import {
  deviceLost,
  DeviceClosedError,
  type DeviceLostError,
  MissingFeatureError,
  NoAdapterError,
} from "../errors.ts";
import { isNode, PollBackoff } from "./poll-backoff.ts";
import { dividesTile } from "../codegen/matmul/matrix.ts";
import type { MatmulPrecision, MatrixShape, Target } from "../codegen/target.ts";

/** Which GPU is opened, and how much of it is used. */
export interface OpenOptions {
  /** Which adapter to ask for, where there are several. */
  readonly adapter?: "high-performance" | "low-power" | "software";
  /** "plain": only what every WebGPU implementation has: default limits, no optional features. Default "auto". */
  readonly variant?: "auto" | "plain";
  /** The kind of adapter that kernels are chosen for, whatever the adapter's own kind. Default: its own kind. */
  readonly tuning?: "hardware" | "software";
  /**
   * Whether to measure which tiles suit large matrix products. This takes a few milliseconds for each kind of product, when a
   * program first has one of that kind; results are the same with any tile. Default: true on GPUs, where no rule knows the
   * best tile.
   */
  readonly measure?: boolean;
  /**
   * "f16": the factors of matrix products are rounded to half precision when a tile of them is read (relative error 2^-11,
   * absolute 2^-24 below 2^-14; beyond 65504 the product is infinite or NaN). Products and sums stay f32. So do the factors
   * of products with a single row or column that are computed as reductions. Needs the feature "shader-f16". Default "f32".
   */
  readonly matmulPrecision?: MatmulPrecision;
  /**
   * A folder, made if it is not there, in which plans and the texts of shaders are kept for later processes (Node, Bun and Deno): there they
   * are read instead of made. Processes may share it. Compiled shaders are kept by the driver. Default: none.
   */
  readonly cache?: string;
  /** Lower limits than the device's, to test how kernels behave on a device with lower limits. */
  readonly limits?: {
    readonly maxBindingBytes?: number;
    readonly maxBindings?: number;
    readonly maxGroupsPerDimension?: number;
  };
}

/** What the adapter says about itself. */
export interface AdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  /** Whether the adapter computes on the CPU. */
  readonly software: boolean;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
}

/** An open device. */
export interface Gpu {
  readonly device: GPUDevice;
  readonly info: AdapterInfo;
  readonly target: Target;
  /** Whether tiles are measured. */
  readonly measure: boolean;
  readonly backoff: PollBackoff;
  /** The folder of the lasting cache, if there is one. */
  readonly cache: string | undefined;
  /** Fulfilled when the device is lost or closed. */
  readonly lost: Promise<DeviceLostError | DeviceClosedError>;
  close(): void;
}

const DEBIAN = "on Debian and Ubuntu a software one is in: apt install libvulkan1 mesa-vulkan-drivers";

/**
 * Dawn lives as long as the object that `create` returned is referenced, and crashes the process if that object is collected
 * too early, even after the last device was destroyed. So one object is made for each set of flags, and kept; it does not
 * keep the process alive.
 */
const dawn = new Map<string, GPU>();

interface DawnModule {
  create(flags: string[]): GPU;
}

async function openDawn(flags: readonly string[]): Promise<GPU> {
  const key = flags.join(" ");
  const known = dawn.get(key);
  if (known) return known;
  const name = "webgpu"; // a variable, so that bundlers for browsers do not follow it
  const module = (await import(name).catch((cause: unknown) => {
    throw new NoAdapterError(
      'WebGPU in Node needs the package "webgpu" (Dawn), which could not be loaded; install it: npm install webgpu',
      { cause },
    );
  })) as DawnModule;
  const gpu = dawn.get(key) ?? module.create([...flags]); // another call may have made it while the module was loaded
  dawn.set(key, gpu);
  return gpu;
}

/** The GPU object of the browser, or of another runtime that has one. */
const nativeGpu = (): GPU | undefined => (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;

async function findGpu({ matmulPrecision }: OpenOptions = {}): Promise<GPU> {
  const native = nativeGpu();
  if (native) return native;
  if (!isNode) {
    throw new NoAdapterError(
      "this browser has no WebGPU (navigator.gpu), or the page is not served from https or localhost; " +
        "use another browser or the CPU backend",
    );
  }
  // subgroup matrices are experimental, and Dawn hides experimental features unless this is set
  return openDawn(matmulPrecision === "f16" ? ["enable-dawn-features=allow_unsafe_apis"] : []);
}

function adapterOptions(options: OpenOptions): GPURequestAdapterOptions {
  if (options.adapter === "software") return { forceFallbackAdapter: true };
  return options.adapter === undefined ? {} : { powerPreference: options.adapter };
}

async function requestAdapter(gpu: GPU, options: OpenOptions): Promise<GPUAdapter> {
  const adapter = await gpu.requestAdapter(adapterOptions(options));
  if (adapter) return adapter;
  const wanted = options.adapter === undefined ? "" : ` of kind "${options.adapter}"`;
  throw new NoAdapterError(
    `WebGPU finds no adapter${wanted}: this machine has no GPU with a Vulkan, Metal or Direct3D 12 driver ` +
      (isNode ? `(${DEBIAN})` : "that the browser accepts") +
      "; or use the CPU backend",
  );
}

/**
 * The adapters that WebGPU offers here, without opening a device: the one that `webgpu()` takes, then others. Rejects with
 * NoAdapterError if there is none; its message says how to get one.
 */
export async function adapters(): Promise<AdapterInfo[]> {
  const gpu = await findGpu();
  const found = [describe(await requestAdapter(gpu, {}))];
  for (const adapter of ["high-performance", "low-power", "software"] as const) {
    const other = await gpu.requestAdapter(adapterOptions({ adapter }));
    if (other) found.push(describe(other));
  }
  const seen = new Set<string>();
  return found.filter((info) => {
    const key = `${info.vendor} ${info.architecture} ${info.description}`;
    return !seen.has(key) && seen.add(key);
  });
}

/** Limits that are raised to what the adapter offers. */
const RAISED = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;
const FEATURES = ["shader-f16", "subgroups", "timestamp-query"] as const;
/** Requested only if matrix products have f16 factors. */
const MATRIX = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

function featuresOf({ features }: GPUAdapter, { variant, matmulPrecision }: OpenOptions): GPUFeatureName[] {
  if (variant === "plain") return [];
  const wanted = matmulPrecision === "f16" ? [...FEATURES, MATRIX] : FEATURES;
  return wanted.filter((feature) => features.has(feature));
}

/** Properties of an adapter that only newer WebGPU versions have. */
interface MoreInfo {
  readonly isFallbackAdapter?: boolean;
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }>;
}

/** The largest matrix shape, with f16 factors and f32 results, that the adapter's subgroups multiply and the kernel can use. */
function matrixOf({ subgroupMatrixConfigs = [] }: MoreInfo): MatrixShape | undefined {
  const size = ({ m, n, k }: MatrixShape): number => m * n * k;
  return [...subgroupMatrixConfigs]
    .filter((c) => c.componentType === "f16" && c.resultComponentType === "f32")
    .map(({ M, N, K }) => ({ m: M, n: N, k: K }))
    .filter(dividesTile)
    .sort((a, b) => size(b) - size(a))[0];
}

function isSoftware(info: GPUAdapterInfo & MoreInfo): boolean {
  const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`;
  return (
    (info.isFallbackAdapter ?? false) || /swiftshader|llvmpipe|lavapipe|software|basic render/i.test(text)
  );
}

function describe(adapter: GPUAdapter): AdapterInfo {
  const { info } = adapter;
  const limits: Record<string, number> = {};
  for (const key in adapter.limits) {
    const value: unknown = adapter.limits[key as keyof GPUSupportedLimits];
    if (typeof value === "number") limits[key] = value;
  }
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    description: info.description || `${info.vendor} ${info.device || info.architecture}`,
    software: isSoftware(info),
    features: [...adapter.features].sort(),
    limits,
  };
}

function targetOf(device: GPUDevice, adapter: GPUAdapter, software: boolean, options: OpenOptions): Target {
  const info = adapter.info as GPUAdapterInfo & MoreInfo;
  const fixed = info.subgroupMinSize === info.subgroupMaxSize ? (info.subgroupMaxSize ?? 0) : 0;
  const { limits } = device;
  const lower = options.limits ?? {};
  return {
    f16: device.features.has("shader-f16"),
    matmulPrecision: options.matmulPrecision ?? "f32",
    subgroup: device.features.has("subgroups") ? fixed : 0,
    matrix: device.features.has(MATRIX) ? matrixOf(info) : undefined,
    software,
    maxInvocations: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
    maxWorkgroupBytes: limits.maxComputeWorkgroupStorageSize,
    maxGroupsPerDimension: Math.min(
      limits.maxComputeWorkgroupsPerDimension,
      lower.maxGroupsPerDimension ?? Infinity,
    ),
    maxBindings: Math.min(limits.maxStorageBuffersPerShaderStage, lower.maxBindings ?? Infinity),
    maxBindingBytes: Math.min(limits.maxStorageBufferBindingSize, lower.maxBindingBytes ?? Infinity),
    offsetAlignment: Math.max(256, limits.minStorageBufferOffsetAlignment),
  };
}

/** The allowed values of options that have only a few. */
const CHOICES: {
  readonly [K in "adapter" | "variant" | "tuning" | "matmulPrecision"]: readonly OpenOptions[K][];
} = {
  adapter: ["high-performance", "low-power", "software"],
  variant: ["auto", "plain"],
  tuning: ["hardware", "software"],
  matmulPrecision: ["f32", "f16"],
};

/** Throws a TypeError if an option has a value that is not allowed. */
function checkOptions(options: OpenOptions): void {
  for (const key of Object.keys(CHOICES) as (keyof typeof CHOICES)[]) {
    const [value, choices] = [options[key], CHOICES[key] as readonly unknown[]];
    if (value === undefined || choices.includes(value)) continue;
    throw new TypeError(
      `webgpu: ${key} is ${JSON.stringify(value)}, which is none of ${choices.map((c) => JSON.stringify(c)).join(", ")}`,
    );
  }
}

function checkF16(adapter: GPUAdapter, { matmulPrecision, variant }: OpenOptions): void {
  const { features } = adapter;
  if (matmulPrecision !== "f16" || (features.has("shader-f16") && variant !== "plain")) return;
  const why = features.has("shader-f16")
    ? 'the variant "plain" leaves out'
    : `the adapter "${describe(adapter).description}" does not offer`;
  throw new MissingFeatureError(
    `matmulPrecision "f16" needs the feature "shader-f16", which ${why}; leave it out, to compute in f32`,
  );
}

/**
 * Opens a device. Rejects with NoAdapterError if there is none, and with MissingFeatureError if it lacks a feature that
 * `options` need.
 */
export async function openGpu(options: OpenOptions = {}): Promise<Gpu> {
  checkOptions(options);
  const gpu = await findGpu(options);
  const adapter = await requestAdapter(gpu, options);
  checkF16(adapter, options);
  return opened(await requestDevice(adapter, options), adapter, options);
}

async function requestDevice(adapter: GPUAdapter, options: OpenOptions): Promise<GPUDevice> {
  const plain = options.variant === "plain";
  const wanted = {
    requiredFeatures: featuresOf(adapter, options),
    requiredLimits: plain ? {} : Object.fromEntries(RAISED.map((k) => [k, adapter.limits[k]])),
  };
  return adapter.requestDevice(wanted).catch((cause: unknown) => {
    throw new NoAdapterError(
      `the adapter "${describe(adapter).description}" opens no device (${String(cause)}); ` +
        'try { variant: "plain" }, another adapter, a newer driver, or the CPU backend',
      { cause },
    );
  });
}

function opened(device: GPUDevice, adapter: GPUAdapter, options: OpenOptions): Gpu {
  const info = describe(adapter);
  let closed = false;
  const lost = device.lost.then(({ reason, message }) =>
    closed
      ? new DeviceClosedError(
          "the device was closed by close() while this was pending; await results before closing",
        )
      : deviceLost(reason, message),
  );
  const software = options.tuning ? options.tuning === "software" : info.software;
  return {
    device,
    info,
    target: targetOf(device, adapter, software, options),
    measure: options.measure ?? !info.software,
    backoff: new PollBackoff(info.software && nativeGpu() === undefined),
    cache: options.cache,
    lost,
    close: () => {
      closed = true;
      device.destroy();
    },
  };
}
