/** The WebGPU backend in a page: more random cases, and what every implementation has of limits and features. */
import { testFineTuning, testSuite, usePages } from "./support/in-page.ts";

const inPage = usePages();

testFineTuning(inPage, "webgpu plain", "/", 12);
for (const backend of ["webgpu", "webgpu plain"] as const) {
  testSuite(inPage, backend, "/", { parts: 8, effort: 0.25 });
}
