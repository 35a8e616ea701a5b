/**
 * The conformance suite, and the parts that it is made of: error bounds, op records, generators.
 * @module
 */
export { BoundsBackend } from "./bounds/backend.ts";
export { type Precision, PRECISION } from "./bounds/precision.ts";
export { checkProgram, type CheckOptions, type Coverage } from "./compare.ts";
export { conformance, type ConformanceSuite } from "./conformance.ts";
export { checkDerivative } from "./derivatives.ts";
export type { Limits, ProgramCase } from "./generate/builder.ts";
export { buildGraph, type BuiltGraph, type GraphGene, graphs } from "./generate/graphs.ts";
export { attentionPrograms, indexPrograms, loopPrograms, matmulPrograms } from "./generate/programs.ts";
export { printProgram } from "./print.ts";
export { property, type PropertyOptions } from "./property.ts";
export { NOT_OPERATIONS, RECORDS } from "./records/index.ts";
export type { CaseSource, Domain, InputSpec, OpCase, OpRecord } from "./records/record.ts";
export { type RuleCoverage, RULES } from "./records/rules.ts";
export type { ConformanceCase, ConformanceOptions, Fusion, Gap, MakeDevice } from "./suites/context.ts";
export { gptTrainer, mlpTrainer, type Trainer } from "./suites/models.ts";
export { Yardstick } from "./yardstick.ts";
