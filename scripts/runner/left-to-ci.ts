/**
 * The table of test files that `npm test` leaves to CI, because they add little for the time that they take. `npm test` prints
 * the table; a file that is named on the command line runs anyway.
 */
export interface LeftToCi {
  readonly file: string;
  /** What the file adds to the other tests. */
  readonly why: string;
  /** Whether its processes wait most of the time: then it runs beside the others, in a process more than there are cores. */
  readonly waits?: true;
}

export const LEFT_TO_CI: readonly LeftToCi[] = [
  { file: "test/webgpu-plain.gpu.test.ts", why: "the suite once more, on default limits" },
  { file: "test/webgpu-tuning.gpu.test.ts", why: "the suite once more, on kernels for GPUs" },
  { file: "test/webgpu-f16.gpu.test.ts", why: "products once more, of factors in half precision" },
  { file: "test/chromium-cpu.browser.test.ts", why: "the suite once more, in Chromium" },
  { file: "test/chromium-webgpu.browser.test.ts", why: "the suite once more, in Chromium" },
  { file: "test/derivatives.test.ts", why: "derivatives once more, against finite differences" },
  { file: "test/suite.test.ts", why: "the suite finds planted faults" },
  { file: "packages/backend-webgpu/test/dispatches.test.ts", why: "counts the kernels of larger models" },
  { file: "test/recorded-webgpu.gpu.test.ts", why: "recorded cases once more, on WebGPU" },
  { file: "packages/backend-webgpu/test/limits.gpu.test.ts", why: "GPUs of lower limits" },
  { file: "packages/backend-webgpu/test/matrix.gpu.test.ts", why: "products on GPUs with matrix units" },
  { file: "packages/backend-webgpu/test/precision.gpu.test.ts", why: "factors in half precision" },
  {
    file: "packages/backend-webgpu/test/tiles.gpu.test.ts",
    why: "measures the tiles of products on a device",
  },
  {
    file: "packages/tiedlora/test/exchange.gpu.test.ts",
    why: "files between backends once more, with WebGPU",
  },
  { file: "packages/models/test/loss.test.ts", why: "every form of the loss in chunks" },
  { file: "packages/backend-webgpu/test/robustness.gpu.test.ts", why: "GPUs that are lost or too small" },
  { file: "packages/experiments/test/report.browser.test.ts", why: "a report in Chromium" },
  { file: "packages/experiments/test/ten-thousand.test.ts", why: "plans and reports ten thousand runs" },
  { file: "packages/models/test/streaming.browser.test.ts", why: "streams in Chromium" },
  { file: "packages/models/test/hub.browser.test.ts", why: "downloads in Chromium" },
  { file: "packages/models/test/parity.gpu.test.ts", why: "all architectures once more, on WebGPU" },
  { file: "packages/models/test/streaming.gpu.test.ts", why: "streams to a GPU" },
  { file: "packages/models/test/streaming.test.ts", why: "all architectures once more, layer by layer" },
  { file: "packages/cli/test/by-name.test.ts", why: "dozens of processes that load models by name" },
  { file: "packages/cli/test/checkpoint.test.ts", why: "dozens of runs that stop and go on" },
  { file: "packages/cli/test/data-commands.test.ts", why: "dozens of processes" },
  { file: "packages/cli/test/claims.test.ts", why: "a dozen processes that share a folder", waits: true },
  { file: "packages/cli/test/init-from.test.ts", why: "dozens of processes" },
  { file: "packages/cli/test/interrupt.test.ts", why: "dozens of processes that are interrupted" },
  { file: "packages/cli/test/kill.test.ts", why: "dozens of processes that are killed" },
  { file: "packages/cli/test/limits.test.ts", why: "runs out of memory" },
  { file: "packages/cli/test/methods.test.ts", why: "trains by every method" },
  { file: "packages/cli/test/lock.test.ts", why: "dozens of processes that share a folder" },
  { file: "packages/cli/test/own-data.test.ts", why: "dozens of processes" },
  { file: "packages/cli/test/queue-sweep.test.ts", why: "servers and workers that are killed", waits: true },
  {
    file: "packages/cli/test/queue-training.test.ts",
    why: "servers and workers that are killed",
    waits: true,
  },
  { file: "packages/cli/test/replace.test.ts", why: "dozens of processes that are killed" },
  { file: "packages/cli/test/run.test.ts", why: "dozens of runs" },
  { file: "packages/cli/test/search.test.ts", why: "trains a search and its grid" },
  { file: "packages/cli/test/serve.test.ts", why: "a hundred requests at once" },
  { file: "packages/cli/test/texts.test.ts", why: "two dozen commands, each of which loads a model" },
  { file: "packages/cli/test/trainer.test.ts", why: "a dozen runs" },
  { file: "packages/cli/test/stream.test.ts", why: "whole runs of streamed models" },
  { file: "packages/cli/test/sweep-kill.test.ts", why: "dozens of processes that are killed", waits: true },
  { file: "packages/cli/test/sweep-slurm.test.ts", why: "starts a Slurm cluster", waits: true },
  { file: "packages/cli/test/unwritable.test.ts", why: "dozens of processes that cannot write" },
  { file: "packages/tiedlora/test/streamed.test.ts", why: "whole trainings once more, layer by layer" },
  { file: "apps/playground/test/controls.browser.test.ts", why: "trains in Chromium" },
  { file: "apps/playground/test/lessons.browser.test.ts", why: "runs the lessons in Chromium" },
  { file: "apps/playground/test/playground.browser.test.ts", why: "trains in Chromium" },
  { file: "scripts/test/docs.test.ts", why: "type-checks and runs all examples of the documentation" },
  { file: "scripts/test/docs-site.browser.test.ts", why: "builds the documentation" },
  { file: "scripts/test/examples.test.ts", why: "runs every example" },
  { file: "scripts/test/fuzz.test.ts", why: "the fuzzer finds planted faults" },
  { file: "scripts/test/layers.test.ts", why: "the rules on imports find planted ones" },
  { file: "scripts/test/oracle.test.ts", why: "the replay of PyTorch's runs finds planted faults" },
  { file: "scripts/test/runner.test.ts", why: "what is reported of processes that crash or hang" },
];
