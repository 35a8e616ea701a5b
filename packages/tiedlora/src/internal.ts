/** Exports for the packages that are built on this one, beyond its public interface. They may change with every version. */
export { siteWeight } from "./adapter/adapter.ts";
export { fingerprintOf } from "./data/dataset.ts";
export { exampleReader, isChat } from "./data/examples.ts";
export { holdOut } from "./data/hold-out.ts";
export { wholeText } from "./data/text.ts";
export { MLX_TENSORS } from "./files/mlx.ts";
export { CONFIG_FILE, readAdapterConfig, TENSORS_FILE } from "./files/native.ts";
export { UnexpectedAdapterError } from "./init-from.ts";
export { describeTies } from "./inspect.ts";
export { endsWithName, moduleNames } from "./match.ts";
export { methodOptions } from "./methods/options.ts";
export { type Entry, ENTRIES } from "./methods/table.ts";
export { nearest, suggestion } from "./nearest.ts";
export { isFinished } from "./train/fit.ts";
export { examplesOfLoss, isOwnLoss, lossesWith, strayRegularizer } from "./train/losses/by-name.ts";
export { microBatchesOf } from "./train/micro-batch.ts";
export { optimizerTakes } from "./train/optimizers.ts";
export { yieldToEventLoop } from "./train/yield.ts";
