/**
 * Adapters for language models, such as the decoders of @tiedlora/models: Tied-LoRA, LoRA, VeRA and methods of your own.
 * @module
 */
export { adapt, Adapter, adaptersOf, type AdaptOptions, type FactorSelection } from "./adapter/adapter.ts";
export type { AdapterSet } from "./adapter/adapter-set.ts";
export type { AttachedAdapter } from "./adapter/attached.ts";
export type { LinearInfo } from "./linear-info.ts";
export { type InitExpectation, initFromFiles, type InitOptions } from "./init-from.ts";
export { type AdaptableModule, moduleInfos, adaptableModules } from "./adapter/modules.ts";
export {
  type Approximated,
  combine,
  COMBINE_NAMES,
  type CombineHow,
  combineMeasured,
  type CombineOptions,
} from "./combine/combine.ts";
export {
  type AdapterReport,
  type FactorCount,
  formatReport,
  inspect,
  type ModuleReport,
  type ParameterReport,
} from "./inspect.ts";
export { type MergeOptions, untie } from "./adapter/merge.ts";
export { BASE } from "./adapter/rows.ts";
export { init, type Init, type Span } from "./init.ts";
export { adaptWithStart, checkStartMethod, type StartOptions } from "./starts/adapt-with-start.ts";
export { START_NAMES, type StartName, STARTS } from "./starts/formulas.ts";
export type { Start, StartContext, StartValues } from "./starts/formulas.ts";
export { observedBatches } from "./starts/inputs.ts";
export { type ByTarget, inputMoments, weightGradients } from "./starts/observe.ts";
export {
  type BiasMode,
  type Call,
  type CommonOptions,
  DEFAULT_LEARNING_RATE,
  defineMethod,
  type Dim,
  type Dims,
  type Factor,
  type FactorSpec,
  type FactorTensors,
  type LowRank,
  lowRankForward,
  type Method,
  type MethodSpec,
  type Place,
  type PlainMethod,
  type PreparedMethod,
  type PrepareContext,
  type Recipe,
  type Scaling,
  type Tie,
} from "./method.ts";
export {
  METHOD_NAMES,
  methodByName,
  type MethodName,
  methods,
  type PlainMethodName,
  tiedLora,
} from "./methods/index.ts";
export { LEARNING_RATES } from "./methods/rates.ts";
export { FACTOR_NAMES, type FactorName, type TiedLoraOptions } from "./methods/tied-lora.ts";
export {
  type AdapterPlan,
  countParameters,
  type FactorPlan,
  planAdapter,
  type SitePlan,
} from "./adapter/plan.ts";
export { type Modules, resolveSites, type Site, type Target, type TargetSpec } from "./adapter/sites.ts";
export { mergedModelFiles } from "./files/merged.ts";
export { peftLoraFiles, peftVeraFiles } from "./files/peft/save.ts";
export { veraProjections } from "./files/torch-random.ts";
export { mlxFiles } from "./files/mlx.ts";
export { ADAPTER_FORMATS, adapterFiles, type AdapterFormat, loadAdapterFiles } from "./files/load.ts";
export type { LoadOptions } from "./files/options.ts";
export { nativeFiles, type Provenance, readProvenance } from "./files/native.ts";
export type {
  LanguageModel,
  LossInputs,
  ModelFileOptions,
  Replacements,
  SavableModel,
  StreamedLanguageModel,
} from "./model.ts";
export type { OutputFile } from "./output-file.ts";
export {
  type AsyncBatchSource,
  type Batch,
  batchesOf,
  type BatchOptions,
  type BatchSource,
  evaluationBatches,
  exampleOrder,
  packExamples,
  stackBatch,
  stepsPerEpoch,
} from "./data/batches.ts";
export { type Dataset, type DatasetOptions, loadDataset } from "./data/dataset.ts";
export { DataError } from "./data/errors.ts";
export { encodeExample, type EncodedExample, type EncodeOptions, promptTokens } from "./data/encode.ts";
export { type ChatExample, type Example, type TextExample } from "./data/examples.ts";
export type { Message } from "./data/messages.ts";
export { mixedBatches, type WeightedSet } from "./data/mixed.ts";
export { streamBatches, type StreamedBatches, type StreamOptions } from "./data/stream.ts";
export { loadLabeled, loadPreferences } from "./data/preferences.ts";
export { readRecords } from "./data/records.ts";
export { type TextFile, textOf } from "./data/text.ts";
export type { Unknown } from "./data/unknown.ts";
export { evaluate, type Evaluation } from "./train/evaluate.ts";
export {
  type AdapterValues,
  type BestStep,
  fit,
  type FitOptions,
  type FitReport,
  type FitState,
} from "./train/fit.ts";
export { DivergedError } from "./train/diverged.ts";
export { type ExampleKind, type Loss, type LossLike, type LossValue, type Outputs } from "./train/loss.ts";
export { losses } from "./train/losses/index.ts";
export { LOSS_NAMES, lossByName, type LossName, type LossOptions } from "./train/losses/by-name.ts";
export type { CrossEntropyLossOptions, DistillationOptions } from "./train/losses/likelihood.ts";
export type { DpoKind, DpoOptions, KtoOptions, OrpoOptions } from "./train/losses/preference.ts";
export { REGULARIZER_NAMES, type RegularizerName } from "./train/losses/regularized.ts";
export type { ByParameter } from "./train/rates.ts";
export { adapterOptimizer, type OptimizerSettings } from "./train/optimizer.ts";
export type { Metrics } from "./train/loss.ts";
export { OPTIMIZER_BETAS, OPTIMIZER_NAMES, OPTIMIZER_RATES, type OptimizerName } from "./train/optimizers.ts";
export type { StepReport, TrainOptions } from "./train/options.ts";
export { GradientWorker } from "./train/gradients.ts";
export {
  type GradientSource,
  lossInputs,
  type MicroBatch,
  type MicroGradients,
} from "./train/micro-batch.ts";
export { RankSchedule, type RankScheduleOptions } from "./train/rank-schedule.ts";
export { train } from "./train/train.ts";
