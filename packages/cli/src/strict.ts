/** Mistakes that the command-line parser does not handle: an option given twice, or by its name in another program. */
import type { Command } from "commander";
import { UsageError } from "./settings.ts";

/**
 * Options that people may expect to accumulate when they are given twice. For others, such as --rank, the last value counts, so
 * that scripts can override it.
 */
const ONE = new Set(["adapter", "config", "data", "prompt", "system", "task", "valid"]);

/** Makes an option of `ONE` that is given twice an error: its first value would be dropped silently. */
export function refuseRepeated(program: Command): void {
  for (const command of [program, ...program.commands]) {
    for (const option of command.options) {
      if (!ONE.has(option.name()) || option.variadic) continue;
      let first: string | null = null;
      command.on(`option:${option.name()}`, (value: string) => {
        if (first !== null)
          throw new UsageError(`${option.long} is given twice, as ${first} and as ${value}; give it once`);
        first = value;
      });
    }
  }
}

/** Names of options in other programs -> their names here. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  "learning-rate": "lr",
  "batch-size": "batch",
  "per-device-train-batch-size": "batch",
  "gradient-accumulation-steps": "accumulate",
  "grad-accumulation-steps": "accumulate",
  "num-train-epochs": "epochs",
  "num-epochs": "epochs",
  "max-steps": "steps",
  iters: "steps",
  "max-length": "seq",
  "max-seq-length": "seq",
  "max-seq-len": "seq",
  "lora-r": "rank",
  "lora-rank": "rank",
  "lora-alpha": "alpha",
  "lora-dropout": "dropout",
  "target-modules": "target",
  "output-dir": "out",
  output: "out",
  "model-name-or-path": "model",
  "adapter-path": "adapter",
  "train-file": "data",
  "dataset-name": "data",
  "validation-file": "valid",
  "validation-split": "valid-split",
  "val-set-size": "valid-split",
  "test-size": "valid-split",
  "loss-type": "loss",
  optim: "optimizer",
  "label-smoothing-factor": "label-smoothing",
  "ema-decay": "ema",
  "max-grad-norm": "clip",
  "warmup-steps": "warmup",
  "lr-scheduler-type": "schedule",
  "gradient-checkpointing": "checkpointing",
  "save-steps": "save-every",
  "eval-steps": "eval-every",
  "max-new-tokens": "max-tokens",
  temp: "temperature",
};

/** The parser's error message, with our name for an unknown option of another program, if `command` has that option. */
export function withOurNames(message: string, command: Command): string {
  const unknown = /unknown option '--([\w-]+)/.exec(message)?.[1];
  const ours = unknown === undefined ? undefined : ELSEWHERE[unknown.replaceAll("_", "-").toLowerCase()];
  if (ours === undefined || !command.options.some(({ long }) => long === `--${ours}`)) return message;
  return `${message.split("\n")[0]}\n(Did you mean --${ours}?)`;
}
