/**
 * Decoder language models on @tiedlora/core: Llama-family, GPT-2 and others from the files of a Hugging Face directory,
 * with tokenizers and generation. Functions that need a file system are in the entry point "@tiedlora/models/node".
 * @module
 */
export type { AdapterChoice, AdapterOptions, AdapterSelector } from "./adapter-choice.ts";
export { ARCHITECTURES, type Architecture, IDENTITY_WEIGHT, type ModelType } from "./architectures.ts";
export { ContinuousBatch, type ContinuousBatchOptions } from "./batching/continuous-batch.ts";
export { type GeneratedToken, type SequenceRequest, TokenStream } from "./batching/sequence.ts";
export { KvCache } from "./cache.ts";
export { configFrom, configToJson, type DecoderConfig, parseConfig, type StoredDType } from "./config.ts";
export {
  type Batch,
  Decoder,
  type ForwardOptions,
  type Ids,
  type ParameterSource,
  type Pass,
} from "./decoder.ts";
export { type Mixture, Router } from "./experts.ts";
export {
  type GenerateOptions,
  generateText,
  generateTokens,
  type Prompt,
  stopTokensOf,
  streamText,
  streamTexts,
  type TextOptions,
} from "./generate.ts";
export { ggufAdapter, type LoraUpdate } from "./gguf/adapter.ts";
export { type Converted, convertGguf, type ConvertOptions } from "./gguf/convert.ts";
export { idsTensor } from "./inputs.ts";
export type { TokenLogprob } from "./logprobs.ts";
export { createModel, loadConfigFrom, loadModelFrom, type LoadOptions, weightBytes } from "./load.ts";
export {
  adaptableSpecs,
  countParameters,
  linearSpecs,
  moduleParameters,
  moduleSpecs,
  type ModuleSpec,
  parameterSpecs,
  type ParameterSpec,
} from "./modules.ts";
export { LayerNorm1P, RMSNorm1P } from "./norms.ts";
export type { LossAndGradients, StreamedLossOptions, StreamedModel } from "./streaming/model.ts";
export { preset, PRESET_NAMES } from "./presets.ts";
export { loadPretrainedFrom, Pretrained } from "./pretrained.ts";
export { lengthMatters, ropeFrequencies, type RopeConfig, type RopeScaling } from "./rope.ts";
export { QUANTIZE_KINDS, type QuantizeKind } from "./quantized/while-loading.ts";
export { sampleToken, type SamplingOptions } from "./sampling.ts";
export {
  modelFiles,
  type OutputFile,
  type SaveDirectoryOptions,
  type SaveOptions,
  weightFiles,
} from "./save.ts";
export { TextStream } from "./stream.ts";
export { type ChatMessage, type ChatOptions, loadTokenizerFrom, Tokenizer } from "./tokenizer.ts";
