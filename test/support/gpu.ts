/** Whether WebGPU tests can run here, in Node. */
import { NoAdapterError, webgpu } from "@tiedlora/backend-webgpu";

/** For `test(name, { skip }, …)`: false, or the reason why no WebGPU test can run here. */
export const skip: string | false = await findReason();

if (skip !== false && process.env["REQUIRE_WEBGPU"] === "1") {
  throw new Error(`REQUIRE_WEBGPU=1, but ${skip}; run "npm run setup"`);
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
