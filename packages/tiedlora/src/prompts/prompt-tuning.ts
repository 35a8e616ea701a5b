/**
 * Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained vectors that every sequence begins with, in front of its tokens'
 * embeddings. The model itself does not change, so there is nothing to merge. Files are those of Python's peft.
 */
import {
  concat,
  type Device,
  type Files,
  FormatError,
  key,
  type Tensor,
  writeSafetensors,
} from "@tiedlora/core";
import { checkOptions, checkWhole, refuse } from "@tiedlora/core/arguments";
import * as nn from "@tiedlora/nn";
import {
  CONFIG_FILE,
  openTensors,
  parametersToWrite,
  type Provenance,
  readAdapterConfig,
  readParameter,
  TENSORS_FILE,
} from "../files/native.ts";
import { checkShape } from "../files/peft/keys.ts";
import type { LossInputs } from "../model.ts";
import type { OutputFile } from "../output-file.ts";

/** Rows of token ids. */
type Rows = readonly ArrayLike<number>[];

/** What prompt tuning needs of a model; `Decoder` of @tiedlora/models has it. */
export interface PromptableModel extends nn.Module {
  readonly device: Device;
  /** The rows of the input embedding, [batch, length, width]. */
  embed(ids: Rows): Tensor;
  /** The hidden states of ids, or of the vectors that are given in place of their embeddings. */
  hidden(ids: Rows, options: { readonly embeddings: Tensor }): Tensor;
  /** The logits of hidden states. */
  logits(hidden: Tensor): Tensor;
}

/** Settings of `PromptTuning`. */
export interface PromptOptions {
  /** The number of trained vectors. Default: as many as `tokens`, or 8. */
  readonly length?: number;
  /** Tokens from whose embeddings the vectors start, again from the first one if they are too few. Default: normal numbers. */
  readonly tokens?: readonly number[];
  /** The seed of the start. Default: 0. */
  readonly seed?: number;
}

/** Trained vectors in front of every sequence of a model, whose own weights are frozen. */
export class PromptTuning {
  readonly model: PromptableModel;
  /** The vectors, [length, width]. */
  readonly prompt: nn.Parameter;

  /** Use `PromptTuning.init` or `PromptTuning.load`. */
  constructor(model: PromptableModel, prompt: nn.Parameter) {
    this.model = model;
    this.prompt = prompt;
    model.freeze();
  }

  /** New vectors for a model, which start from the embeddings of given tokens, or from small random numbers. */
  static async init(model: PromptableModel, options: PromptOptions = {}): Promise<PromptTuning> {
    const { tokens, seed = 0 } = checkOptions("PromptTuning", options, "{ length: 8 }", [
      "length",
      "tokens",
      "seed",
    ]);
    if (tokens !== undefined && (!Array.isArray(tokens) || tokens.length === 0))
      refuse(
        "PromptTuning: tokens",
        tokens,
        "list of ids of tokens",
        "at least one, e.g. of the task's description",
      );
    const length = checkWhole("PromptTuning: length", options.length ?? tokens?.length ?? 8, 1);
    const ids = Array.from({ length }, (_, i) => tokens?.[i % tokens.length] ?? 0);
    const rows = model.embed([ids]);
    const width = rows.shape.at(-1)!;
    if (tokens !== undefined)
      return new PromptTuning(
        model,
        nn.Parameter.from(model.device, await rows.data(), [length, width], "f32", "prompt"),
      );
    const random = { device: model.device, key: key(seed).fold("prompt") };
    return new PromptTuning(model, nn.normalParameter([length, width], 0.02, random, "prompt"));
  }

  /** The parameters for an optimizer. */
  parameters(): nn.Parameter[] {
    return [this.prompt];
  }

  /** ids [batch, length] -> the logits of these tokens [batch, length, vocab], with the prompt in front of each row. */
  forward(ids: Rows): Tensor {
    return this.model.logits(this.#hidden(ids));
  }

  /** The mean of -log p over the predicted tokens of a batch, as the model's own loss. Throws for rows of several examples. */
  loss({ inputIds, mask, segments }: Pick<LossInputs, "inputIds"> & Partial<LossInputs>): Tensor {
    if (segments !== undefined)
      throw new Error(
        "prompt tuning: rows of several examples would have the prompt in front of the first alone; do not pack them",
      );
    const { device } = this.model;
    const length = inputIds[0]!.length;
    const flat = (rows: Rows): number[] => rows.flatMap((row) => Array.from(row).slice(1));
    const shape = [inputIds.length, length - 1];
    const targets = device.tensor(Int32Array.from(flat(inputIds)), { shape, dtype: "i32" });
    const logits = this.model.logits(this.#hidden(inputIds.map((row) => Array.from(row).slice(0, -1))));
    const counted = mask && device.tensor(Float32Array.from(flat(mask)), { shape });
    return nn.crossEntropy(logits, targets, { ignoreIndex: null, ...(counted && { mask: counted }) });
  }

  #hidden(ids: Rows): Tensor {
    const [length = 0, width = 0] = this.prompt.shape;
    const tokens = this.model.embed(ids);
    const [batch = 0, count = 0] = tokens.shape;
    const prompt = this.prompt.unsqueeze(0).expand([batch, length, width]);
    const places = Array.from({ length: batch }, () => new Int32Array(length + count));
    const hidden = this.model.hidden(places, { embeddings: concat([prompt, tokens], 1) });
    return hidden.narrow(1, length, count);
  }

  /** The files of peft's PROMPT_TUNING. */
  files(provenance: Provenance = {}): OutputFile[] {
    const [length, width] = this.prompt.shape;
    const config = {
      peft_type: "PROMPT_TUNING",
      task_type: "CAUSAL_LM",
      base_model_name_or_path: provenance["base_model"] ?? null,
      inference_mode: true,
      num_virtual_tokens: length,
      token_dim: width,
      num_transformer_submodules: 1,
      prompt_tuning_init: "RANDOM",
    };
    return [
      [
        TENSORS_FILE,
        writeSafetensors(parametersToWrite([["prompt_embeddings", this.prompt]]), [["format", "pt"]]),
      ],
      [CONFIG_FILE, `${JSON.stringify(config, null, 2)}\n`],
    ];
  }

  /** Reads the files of peft's PROMPT_TUNING. Throws FormatError if they are of another kind, or do not fit the model. */
  static async load(model: PromptableModel, files: Files): Promise<PromptTuning> {
    const config = await readAdapterConfig(files);
    if (config["peft_type"] !== "PROMPT_TUNING")
      throw new FormatError({
        file: `${files.name}/${CONFIG_FILE}`,
        tensor: "peft_type",
        found: JSON.stringify(config["peft_type"]),
        expected: '"PROMPT_TUNING"; other adapters are read by loadAdapter',
      });
    const file = await openTensors(files);
    try {
      const width = model.embed([[0]]).shape.at(-1)!;
      const length = file.entries.get("prompt_embeddings")?.shape[0] ?? 0;
      const prompt = nn.constantParameter([Math.max(length, 1), width], 0, model.device, "prompt");
      checkShape(file, "prompt_embeddings", prompt.shape);
      prompt.set(await readParameter(file, "prompt_embeddings", prompt));
      return new PromptTuning(model, prompt);
    } finally {
      await file.close();
    }
  }
}
