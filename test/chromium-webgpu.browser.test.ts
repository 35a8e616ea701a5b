/** The WebGPU backend in a page, on Chromium's software adapter: slow, therefore few random cases. */
import { testFineTuning, testRecorded, testSuite, usePages } from "./support/in-page.ts";

const inPage = usePages();

testFineTuning(inPage, "webgpu", "/", 6);
testSuite(inPage, "webgpu", "/", { parts: 8, effort: 0.05 });
testRecorded(inPage, "webgpu", 0.04);
