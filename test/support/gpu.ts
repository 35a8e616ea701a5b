/** Whether WebGPU tests can run here, in Node. */
import { adapters, NoAdapterError, webgpu } from "@tiedlora/backend-webgpu";

/** For `test(name, { skip }, …)`: false, or the reason why no WebGPU test can run here. */
export const skip: string | false = await findReason();

if (skip !== false && process.env["REQUIRE_WEBGPU"] === "1") {
  throw new Error(`REQUIRE_WEBGPU=1, but ${skip}; run "npm run setup"`);
}

/** The same for tests that need half precision in shaders. */
export const skipF16: string | false = skip === false ? await findReasonF16() : skip;

async function findReasonF16(): Promise<string | false> {
  const [first] = await adapters();
  if (first!.features.includes("shader-f16")) return false;
  return `the adapter "${first!.description}" has no feature "shader-f16"`;
}

async function findReason(): Promise<string | false> {
  try {
    const device = await webgpu();
    device.close();
    return false;
  } catch (error) {
    if (error instanceof NoAdapterError) return error.message;
    throw error;
  }
}
