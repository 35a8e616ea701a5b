import { type AdapterResult, requestNodeAdapter } from "@tiedlora/backend-webgpu/node";

const found: AdapterResult = await requestNodeAdapter();
if (found.reason !== undefined && process.env["REQUIRE_WEBGPU"] === "1") {
  throw new Error(`REQUIRE_WEBGPU=1, but ${found.reason}; run "npm run setup"`);
}

/** For `test(name, { skip }, …)`: false, or the reason why no WebGPU test can run here. */
export const skip: string | false = found.reason ?? false;

/** A fresh device; call only where {@link skip} is false. */
export async function device(): Promise<GPUDevice> {
  if (!found.adapter) throw new Error(found.reason);
  return await found.adapter.requestDevice();
}
