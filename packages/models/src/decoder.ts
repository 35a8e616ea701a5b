/**
 * The decoder: one for all architectures. Their differences are data (architectures.ts, config.ts); this file makes the
 * modules and computes logits and losses.
 *
 *   x = embed(ids);  for each layer:  x = layer(x) (layer.ts);  logits = head(norm(x))
 */
import { checkpoint, checkpointIn, type Device, type Parameter, type Tensor } from "@tiedlora/core";
import { checkOptions } from "@tiedlora/core/arguments";
import * as nn from "@tiedlora/nn";
import { type AdapterOptions, type AdapterSelector, withAdapters } from "./adapter-choice.ts";
import {
  directoryFiles,
  modelFiles,
  type OutputFile,
  type SaveDirectoryOptions,
  type SaveOptions,
} from "./save.ts";
import { lengthMatters } from "./rope.ts";
import { ARCHITECTURES } from "./architectures.ts";
import type { DecoderConfig } from "./config.ts";
import {
  checkEmbeddings,
  type Ids,
  idsTensor,
  type IdsShape,
  labelsTensor,
  lossMask,
  readFor,
  readSegments,
  shownBy,
} from "./inputs.ts";
import { Router } from "./experts.ts";
import { type Layer, prefixLength, runLayer } from "./layer.ts";
import { decoderSpec, moduleParameters, type ModuleSpec, storedInOut } from "./modules.ts";
import { makeNorm } from "./norms.ts";
import { type Predicted, predictedPositions } from "./predicted.ts";
import { softcap } from "./softcap.ts";
import type { Batch, ForwardOptions, Pass } from "./pass.ts";
import { withPrompt } from "./prompt.ts";
import { prepare } from "./sequence.ts";
import type { StreamedModel } from "./streaming/model.ts";

export type { Ids } from "./inputs.ts";
export type { Batch, ForwardOptions, Pass } from "./pass.ts";

/** A module that only gives its children a name. */
class Scope extends nn.Module {}

/** Returns the parameter of a path, which has the given shape. */
export type ParameterSource = (path: string, shape: readonly number[]) => Parameter;

/**
 * A decoder-only language model. Its modules sit at the paths of Hugging Face's models, e.g.
 * `model.layers.0.self_attn.q_proj`; they cannot be replaced, but their parameters can, and a linear's `adapter` changes its output.
 */
export class Decoder extends nn.Module {
  readonly config: DecoderConfig;
  readonly device: Device;
  /** Compute each layer's intermediate values again in the backward pass instead of keeping them. */
  checkpointing = false;
  /** The type in which `checkpointing` keeps the input of each layer for the backward pass. */
  activations: "f32" | "f16" | "bf16" = "f32";
  /**
   * The most bytes of logits that `loss` computes at once if the output embedding is frozen. A larger batch goes through the
   * output embedding in chunks, and only with its positions that predict a token. (The gradient of a trained output embedding
   * needs all logits.)
   */
  maxLogitsBytes: number = 64 * 2 ** 20;
  /** Chooses adapters for one call; null as long as no adapter has been put on the model. */
  adapters: AdapterSelector | null = null;
  /**
   * How the model is run if it was loaded with `{ stream: true }`, so that not all of its weights are in memory at once; null
   * otherwise. The methods of the decoder itself need all weights.
   */
  streamed: StreamedModel | null = null;
  readonly #modules: nn.Module[] = [];
  // Private, so that the walk over modules meets them at their named places only.
  readonly #embed: nn.Embedding;
  readonly #position: nn.Embedding | null;
  readonly #layers: readonly Layer[];
  readonly #finalNorm: nn.Norm;
  readonly #head: nn.Linear;

  /** Builds the modules around the parameters from `source`, which is not called for the head's weight if embeddings are tied. */
  constructor(config: DecoderConfig, device: Device, source: ParameterSource) {
    super();
    this.config = config;
    this.device = device;
    const spec = decoderSpec(config);
    const parameters = (module: ModuleSpec): [Parameter, Parameter | null] => {
      const [weight, bias] = moduleParameters(config, module).map(({ path, shape }) => source(path, shape));
      return [weight!, bias ?? null];
    };
    const embedding = (module: ModuleSpec): nn.Embedding =>
      this.#place(module.path, new nn.Embedding(parameters(module)[0]));
    const linear = (module: ModuleSpec): nn.Linear => {
      const layout = storedInOut(config, module) ? "inOut" : "outIn";
      return this.#place(module.path, new nn.Linear(...parameters(module), layout));
    };
    const norm = (module: ModuleSpec): nn.Norm =>
      this.#place(module.path, makeNorm(config.norm, ...parameters(module), config.normEps));

    this.#embed = embedding(spec.embed);
    this.#position = spec.position && embedding(spec.position);
    this.#layers = spec.layers.map((layer) => ({
      attentionNorm: layer.attentionNorm && norm(layer.attentionNorm),
      qkv: layer.qkv.map(linear),
      qNorm: layer.qNorm && norm(layer.qNorm),
      kNorm: layer.kNorm && norm(layer.kNorm),
      out: linear(layer.out),
      attentionPostNorm: layer.attentionPostNorm && norm(layer.attentionPostNorm),
      mlpNorm: layer.mlpNorm && norm(layer.mlpNorm),
      router: layer.router && this.#place(layer.router.path, new Router(parameters(layer.router)[0])),
      mlps: layer.mlps.map(({ gate, up, down }) => ({
        gate: gate && linear(gate),
        up: linear(up),
        down: linear(down),
      })),
      mlpPostNorm: layer.mlpPostNorm && norm(layer.mlpPostNorm),
    }));
    this.#finalNorm = norm(spec.finalNorm);
    this.#head = config.tied
      ? this.#place(spec.head.path, new nn.Linear(this.#embed.weight))
      : linear(spec.head);
  }

  /** Puts a module at its path below this one, and creates the scopes and arrays between them. Another module there would not compute. */
  #place<M extends nn.Module>(path: string, module: M): M {
    const segments = path.split(".");
    const put = <T extends object>(at: object, segment: string, value: T): T => {
      Object.defineProperty(at, segment, { value, enumerable: true }); // assigning to it throws
      return value;
    };
    const parent = segments.slice(0, -1).reduce<object>((at, segment, i) => {
      const known = (at as Record<string, object | undefined>)[segment];
      return known ?? put(at, segment, /^\d+$/.test(segments[i + 1]!) ? [] : new Scope());
    }, this);
    this.#modules.push(module);
    return put(parent, segments.at(-1)!, module);
  }

  /** @internal The modules that compute, in order. */
  get computing(): readonly nn.Module[] {
    return this.#modules;
  }

  /** ids [batch, length] -> logits [batch, length, vocab], f32. */
  forward(ids: Ids, options: ForwardOptions = {}): Tensor {
    return withAdapters(this.adapters, options, () => this.#logits(this.#hidden(ids, options)));
  }

  /** ids [batch, length] -> the rows of the input embedding [batch, length, hidden], f32, as `embeddings` of a forward pass. */
  embed(ids: Ids, options: AdapterOptions = {}): Tensor {
    return withAdapters(this.adapters, options, () =>
      this.#embed.forward(idsTensor(this.device, ids, this.config.vocab)).cast("f32"),
    );
  }

  /** The logits of hidden states [..., hidden] -> [..., vocab]. */
  logits(hidden: Tensor, options: AdapterOptions = {}): Tensor {
    return withAdapters(this.adapters, options, () => this.#logits(hidden));
  }

  #logits(hidden: Tensor): Tensor {
    return softcap(this.#head.forward(hidden), this.config.logitSoftcap);
  }

  /** ids [batch, length] -> the normalized hidden states that the output embedding reads, [batch, length, hidden], f32. */
  hidden(ids: Ids, options: ForwardOptions = {}): Tensor {
    return withAdapters(this.adapters, options, () => this.#hidden(ids, options));
  }

  #hidden(ids: Ids, options: ForwardOptions): Tensor {
    return this.#run(this.#pass(ids, options), this.checkpointing && options.cache === undefined);
  }

  #run({ start, layers, finish }: Pass, keep: boolean): Tensor {
    let x = start();
    for (const layer of layers) x = keep ? this.#checkpointed(layer, x) : layer(x);
    return finish(x);
  }

  /** A checkpoint runs again when the loss is differentiated: through the same adapters, whichever are active by then. */
  #checkpointed(layer: (x: Tensor) => Tensor, x: Tensor): Tensor {
    const bound = this.adapters?.bound(layer) ?? layer;
    return this.activations === "f32" ? checkpoint(bound, x) : checkpointIn(this.activations, bound, x);
  }

  /** The parts of `hidden`, to be run one at a time; through the adapters of `options`, whichever are active by then. */
  pass(ids: Ids, options: ForwardOptions = {}): Pass {
    return this.#bound(options, () => this.#pass(ids, options));
  }

  /** The parts of `loss`, to be run one at a time; through the adapters of `choice`, whichever are active by then. */
  lossPass(batch: Batch, choice: AdapterOptions = {}): Pass {
    return this.#bound(choice, () => this.#lossPass(batch, choice));
  }

  #bound(choice: AdapterOptions, make: () => Pass): Pass {
    return withAdapters(this.adapters, choice, () => {
      const { start, layers, finish } = make();
      const bound = <A extends Tensor[]>(part: (...x: A) => Tensor): ((...x: A) => Tensor) =>
        this.adapters?.bound(part) ?? part;
      return { start: bound(start), layers: layers.map(bound), finish: bound(finish) };
    });
  }

  #pass(ids: Ids, options: ForwardOptions): Pass {
    const { config } = this;
    const { cache } = options;
    const tokens = idsTensor(this.device, ids, this.config.vocab, shownBy(options.attentionMask));
    const offset = prefixLength(this.#layers);
    if (offset > 0 && this.lengthMatters)
      throw new Error(
        "keys and values in front of a sequence: this model's rotations depend on the length of a sequence, which they would change; use another method",
      );
    const vectors = this.#embed.adapter?.prompt?.() ?? null;
    const prompt = vectors?.shape[0] ?? 0;
    if (prompt > 0 && options.segments && this.lengthMatters)
      throw new Error(
        "vectors in front of packed sequences: this model's rotations depend on the length of each sequence, which they are part of; do not pack them",
      );
    const around = { ...options, offset, prompt };
    const sequence = prepare(config, this.device, tokens.shape as IdsShape, around, cache);
    if (sequence.prompt > 0) cache?.reserve(sequence.prompt + tokens.shape[1]!);
    return {
      start: () => {
        // Half-precision tables are widened once here; from here on everything is f32.
        const read = options.embeddings
          ? checkEmbeddings(options.embeddings, [...tokens.shape, config.hidden])
          : this.#embed.forward(tokens).cast("f32");
        const whole = withPrompt(read, vectors, sequence);
        const x = config.embedScale === 1 ? whole : whole.mul(config.embedScale);
        return this.#position ? x.add(this.#position.forward(sequence.positions)) : x;
      },
      layers: this.#layers.map(
        (layer, index) => (x) => runLayer(layer, x, { config, index, sequence, cache }),
      ),
      finish: (x) =>
        this.#finalNorm.forward(sequence.prompt === 0 ? x : x.narrow(1, sequence.prompt, tokens.shape[1]!)),
    };
  }

  /**
   * The mean over the predicted tokens of -log p(token | the tokens before it), in nats. Entry t of the mask and of the labels
   * refers to token t, which position t - 1 predicts; the first token is never predicted. See `nn.crossEntropy` for positions
   * that do not count. Ids in a tensor are not checked: one outside of the vocabulary makes the loss NaN. Throws RangeError
   * for sequences of fewer than two tokens.
   */
  loss(batch: Batch, choice: AdapterOptions = {}): Tensor {
    return withAdapters(this.adapters, choice, () =>
      this.#run(this.#lossPass(batch, choice), this.checkpointing),
    );
  }

  /** The logits from which `loss` is computed, [batch, length - 1, vocab]: position t predicts token t + 1 of its row. */
  predictions(batch: Batch, choice: AdapterOptions = {}): Tensor {
    return withAdapters(this.adapters, choice, () =>
      this.#run(this.#predictionPass(batch, choice), this.checkpointing),
    );
  }

  /** The parts of `predictions`, to be run one at a time; through the adapters of `choice`, whichever are active by then. */
  predictionPass(batch: Batch, choice: AdapterOptions = {}): Pass {
    return this.#bound(choice, () => this.#predictionPass(batch, choice));
  }

  #predictionPass(batch: Batch, choice: AdapterOptions): Pass {
    const { inputIds, mask, segments } = checkOptions("predictions", batch, "{ inputIds }");
    const ids = idsTensor(this.device, inputIds, this.config.vocab, readFor(mask, segments));
    const pass = this.#readPass(ids, segments, choice);
    return { ...pass, finish: (x) => this.#logits(pass.finish(x)) };
  }

  /** The pass over all tokens but the last of each row, which predicts nothing: leaving it out changes no other position. */
  #readPass(ids: Tensor, segments: Batch["segments"], choice: AdapterOptions): Pass {
    const length = predictingLength(ids);
    const read = segments ? { ...choice, segments: readSegments(segments) } : choice;
    return this.#pass(ids.narrow(1, 0, length - 1), read);
  }

  #lossPass(batch: Batch, choice: AdapterOptions): Pass {
    const {
      inputIds,
      mask,
      segments,
      labels,
      ignoreIndex = -100,
    } = checkOptions("loss", batch, "{ inputIds }");
    const { vocab } = this.config;
    const ids = idsTensor(this.device, inputIds, vocab, readFor(mask, segments));
    const length = predictingLength(ids);
    const counted = lossMask(this.device, mask, segments, ids.shape);
    const targets = labels && labelsTensor(this.device, labels, ids.shape, vocab, ignoreIndex);
    const pass = this.#readPass(ids, segments, choice);
    const options = {
      ignoreIndex: targets ? ignoreIndex : null, // inputs as targets are never ignored: an ignored id would have no embedding
      ...(counted && { mask: counted }),
    };
    const expected = (targets ?? ids).narrow(1, 1, length - 1);
    const rows = Math.max(1, Math.floor(this.maxLogitsBytes / (4 * vocab)));
    const finish = (x: Tensor): Tensor => {
      const hidden = pass.finish(x);
      if (expected.size <= rows || this.#head.weight.requiresGrad)
        return nn.crossEntropy(this.#logits(hidden), expected, options);
      // An adapter of the head may treat rows of the batch differently: then the rows are kept.
      const predicted = this.#head.adapter ? null : predictedPositions(batch, ids.shape);
      return this.#chunkedLoss(hidden, expected, predicted, { ...options, rows });
    };
    return { ...pass, finish };
  }

  /** The loss of hidden states [batch, n, hidden] against targets [batch, n], or of the predicted positions alone, `rows` at a time. */
  #chunkedLoss(
    hidden: Tensor,
    expected: Tensor,
    predicted: Predicted | null,
    options: nn.ChunkedCrossEntropyOptions,
  ): Tensor {
    const head = (x: Tensor): Tensor => this.#logits(x);
    const { rows } = options;
    if (predicted === null) {
      const perRow = Math.max(1, Math.floor(rows / hidden.shape[0]!));
      return nn.chunkedCrossEntropy(hidden, head, expected, { ...options, rows: perRow });
    }
    const [at, mask] = [this.device.tensor(predicted.index), this.device.tensor(predicted.weight)];
    const flat = (x: Tensor): Tensor => x.reshape([expected.size, ...x.shape.slice(2)]).take(at);
    return nn.chunkedCrossEntropy(flat(hidden), head, flat(expected), { ...options, mask });
  }

  /** Whether the output embedding has the input embedding's weight now: an adapter, or a merge, may have given it its own. */
  get tied(): boolean {
    return this.#head.weight === this.#embed.weight;
  }

  /** The number of positions that the adapters which take part now put in front of every sequence. */
  get positionsInFront(): number {
    return prefixLength(this.#layers) + (this.#embed.adapter?.prompt?.()?.shape[0] ?? 0);
  }

  /** Whether rotations depend on the length of a sequence; if so, padding must not count as part of it. */
  get lengthMatters(): boolean {
    return lengthMatters(this.config);
  }

  /** The weights and the config as files: see `modelFiles`. */
  files(options: SaveOptions = {}): OutputFile[] {
    return modelFiles(this, options);
  }

  /** The files to write into a directory, and those to remove from it: see `saveModel`. */
  directoryFiles(
    options: SaveDirectoryOptions = {},
  ): Promise<{ files: readonly OutputFile[]; stale: readonly string[] }> {
    return directoryFiles(this, options);
  }

  /** The linear at a path; undefined if there is none. */
  linear(path: string): nn.Linear | undefined {
    for (const [name, module] of this.namedModules())
      if (name === path && module instanceof nn.Linear) return module;
    return undefined;
  }

  /** Every linear with its path, in the order of computation: the modules that adapters can target. */
  linears(): [path: string, linear: nn.Linear][] {
    return [...this.namedModules()].filter(
      (entry): entry is [string, nn.Linear] => entry[1] instanceof nn.Linear,
    );
  }

  /** The name of the class in transformers, for messages. */
  get name(): string {
    return ARCHITECTURES[this.config.modelType].className;
  }
}

/** The length of rows of ids. Throws RangeError if there is nothing to predict in them. */
function predictingLength(ids: Tensor): number {
  const [, length] = ids.shape as IdsShape;
  if (length >= 2) return length;
  throw new RangeError(`loss: sequences of ${length} token; need at least 2, to predict one from another`);
}
