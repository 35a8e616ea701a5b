/** The base class of optimizers: gradients, accumulation, clipping, masks, state, and one program per step. */
import {
  computeType,
  type Device,
  gradOrNull,
  Parameter,
  sameShape,
  type Shape,
  type Storage,
  Tensor,
  where,
} from "@tiedlora/core";
import {
  build,
  checkOptions,
  checkTensors,
  deviceOf,
  execute,
  refuse,
  show,
  type Update,
} from "@tiedlora/core/extend";
import { checkNumber, checkRule, type Rule } from "./checks.ts";
import { checkMask } from "./mask.ts";
import type { Schedule } from "./schedule.ts";
import { type OptimizerState, type State, StateMemory, type StateShapes } from "./state.ts";
import { storedTensor, zeroStorage } from "./state.ts";

/** Settings common to all optimizers. */
export interface OptimizerOptions {
  /** The learning rate: a number, or a schedule that gives the rate of each step. */
  readonly lr: number | Schedule;
  /** What the learning rate of a parameter is multiplied by. Default: 1 for every parameter. */
  readonly lrFactor?: (parameter: Parameter) => number;
  /** Scales all gradients down by a common factor so that their joint L2 norm is at most this. Default: no clipping. */
  readonly clipNorm?: number;
}

/** The names of the settings common to all optimizers, for checks of their options. */
export const COMMON_SETTINGS: readonly string[] = ["lr", "lrFactor", "clipNorm"];

/** Run-time numbers of the parameters with one factor of the learning rate, by name and in groups, each in every element of `shape`. */
interface Numbers {
  readonly shape: Shape;
  readonly factor: number;
  readonly byName: Map<string, Tensor>;
  readonly groups: Map<string, Readonly<Record<string, Tensor>>>;
}

/** Gradients that were computed elsewhere, by parameter, each in the parameter's shape and compute type. */
export type Gradients = ReadonlyMap<Parameter, Tensor>;

/** Updates parameters from gradients of a loss. Parameters with `requiresGrad` false keep their values. */
export abstract class Optimizer {
  /** The parameters that it trains, each once. */
  readonly parameters: readonly Parameter[];
  readonly #schedule: Schedule;
  readonly #lrFactors: ReadonlyMap<Parameter, number>;
  readonly #clipNorm: number | undefined;
  readonly #state: StateMemory;
  #accumulated = new Map<Parameter, Storage>();
  /** The run-time numbers of this step, for each shape and factor of the learning rate that `number` was called with. */
  readonly #numbers: Numbers[] = [];
  /** Those that were asked for last. */
  #latest: Numbers | null = null;
  /** The factor of the learning rate of the parameter whose rule is running. */
  #lrFactor = 1;
  #step = 0;
  #gradNorm: Tensor | null = null;
  /** Memory for the norm, reused by every step: separate unread results would stay allocated until garbage collection. */
  #normStorage: Storage | null = null;

  constructor(parameters: readonly Parameter[], options: OptimizerOptions) {
    const what = this.constructor.name;
    if (!Array.isArray(parameters))
      refuse(what, parameters, "list of parameters", "one, e.g. model.parameters()");
    for (const p of parameters)
      if (!(p instanceof Parameter)) refuse(what, p, "parameter", "parameters, e.g. model.parameters()");
    this.parameters = [...new Set(parameters as readonly Parameter[])];
    if (this.parameters.length === 0) throw new RangeError("optimizer: there are no parameters to train");
    const { lr, lrFactor, clipNorm } = checkOptions(what, options, "{ lr: 0.01 }");
    this.#schedule = typeof lr === "function" ? lr : () => lr;
    this.#clipNorm = clipNorm;
    if (typeof lr !== "function") checkNumber(`${what}: lr`, lr, "{ lr: 0.01 }, or a schedule", lr >= 0);
    if (clipNorm !== undefined) checkNumber(`${what}: clipNorm`, clipNorm, "1", clipNorm > 0, Infinity);
    this.#lrFactors = new Map(this.parameters.map((p) => [p, checkFactor(what, p, lrFactor)]));
    this.#state = new StateMemory(what, this.parameters, (p) => this.stateShapes(p));
  }

  /**
   * The shape of each state tensor that the rule keeps for `parameter`, by name, e.g. `{ m: parameter.shape }` or
   * `{ row: [rows], column: [columns] }`. Must return the same for a parameter every time; {} for a rule without state.
   */
  protected abstract stateShapes(parameter: Parameter): StateShapes;
  /**
   * Computes the new value and state of the parameter `of` from its value `p`, gradient `g` and old state, all in the
   * parameter's compute type; `step` counts from 1. The results have the shapes and types of the tensors that they replace.
   * Elements that a mask freezes have gradient 0; they keep their value, and their elements of state tensors that have the
   * parameter's shape.
   */
  protected abstract rule(p: Tensor, g: Tensor, state: State, lr: number, step: number, of: Parameter): Rule;

  /**
   * A number that is passed at run time whatever its value, so that e.g. learning rates of 0 and 0.1 share one program. Within a
   * step, the same name and `shape` give the same tensor to all parameters of the same `lrFactor`.
   */
  protected number(name: string, value: number, shape: Shape = []): Tensor {
    const { byName } = this.#numbersOf(shape);
    let known = byName.get(name);
    if (known) return known;
    const isOne = shape.length === 0;
    known = isOne
      ? new Tensor(build.runtimeScalar(value, "f32"), null)
      : this.number(name, value).expand(shape);
    byName.set(name, known);
    return known;
  }

  /** Several of them at once: `values` is called once in a step for each `shape` and factor, and gives the numbers of `group` by name. */
  protected numbers<K extends string>(
    group: string,
    shape: Shape,
    values: () => Readonly<Record<K, number>>,
  ): Readonly<Record<K, Tensor>> {
    const { groups } = this.#numbersOf(shape);
    let known = groups.get(group) as Record<K, Tensor> | undefined;
    if (known) return known;
    known = {} as Record<K, Tensor>;
    const given = Object.entries(values()) as [K, number][];
    for (const [name, value] of given) known[name] = this.number(`${group}: ${name}`, value, shape);
    groups.set(group, known);
    return known;
  }

  #numbersOf(shape: Shape): Numbers {
    const factor = this.#lrFactor;
    if (this.#latest?.shape === shape && this.#latest.factor === factor) return this.#latest;
    for (const numbers of this.#numbers)
      if (numbers.factor === factor && sameShape(numbers.shape, shape)) return (this.#latest = numbers);
    this.#latest = { shape, factor, byName: new Map(), groups: new Map() };
    this.#numbers.push(this.#latest);
    return this.#latest;
  }

  /** The number of steps done. */
  get stepCount(): number {
    return this.#step;
  }
  /** The learning rate of the next step. */
  get lr(): number {
    const lr = this.#schedule(this.#step);
    return checkNumber(`lr of step ${this.#step}`, lr, "a schedule that gives 0.01", lr >= 0);
  }
  /**
   * The joint L2 norm, before clipping, of the last step's gradients of all trained parameters; null unless `clipNorm` was given.
   * The next step overwrites it.
   */
  get gradNorm(): Tensor | null {
    return this.#gradNorm;
  }

  /**
   * Differentiates `loss`, updates all trained parameters, and evaluates the loss and the tensors `also` with the values before
   * the update, all in one program. Gradients from `accumulate` are added; without a loss, only those are applied. In place of
   * the loss it takes gradients, as those of a model that is too large for one program. Throws RangeError if there is neither, if
   * all parameters are frozen, or if the loss depends on no trained parameter.
   */
  step(loss?: Tensor | Gradients, also: readonly Tensor[] = []): void {
    if (loss !== undefined) checkLoss("step", loss);
    const { device, tensors, updates } = this.trace(loss, checkTensors("step: also", also));
    execute(
      device,
      tensors.map((t) => t.node),
      updates,
    );
    if (this.#gradNorm) this.#gradNorm = new Tensor(build.buffer(this.#normStorage!, [], "f32"), device);
    this.#dropAccumulated();
    this.#step++;
  }

  /**
   * Updates all trained parameters by gradients that were computed elsewhere, added to those of `accumulate`; see `step`. Parameters
   * without a gradient are treated as if it were zero.
   */
  apply(gradients: Gradients): void {
    if (!(gradients instanceof Map))
      refuse("apply", gradients, "Map of gradients", "one from parameters to tensors of their shapes");
    this.step(gradients);
  }

  /** Adds the gradients of `loss`, or given ones, to those accumulated so far; the next `step` applies their sum. */
  accumulate(loss: Tensor | Gradients): void {
    checkLoss("accumulate", loss);
    const trained = this.#trained();
    const values = loss instanceof Tensor ? [loss] : [];
    const device = deviceOf([...values, ...trained])!;
    const gradients = this.#gradients(loss, trained);
    const sums = new Map(
      trained.map((p) => [p, this.#accumulated.get(p) ?? zeroStorage(p, p.shape, "gradient")]),
    );
    const updates = trained.map((p, i): Update => ({ storage: sums.get(p)!, value: gradients[i]!.node }));
    execute(
      device,
      values.map((t) => t.node),
      updates,
    );
    for (const [p, storage] of sums) this.#accumulated.set(p, storage);
  }

  #dropAccumulated(): void {
    for (const storage of this.#accumulated.values()) storage.buffer.free();
    this.#accumulated = new Map();
  }

  #trained(): Parameter[] {
    const trained = this.parameters.filter((p) => p.requiresGrad);
    if (trained.length === 0)
      throw new RangeError("optimizer: every parameter is frozen; set requiresGrad on one");
    return trained;
  }

  /** The gradients of the loss plus the accumulated gradients. */
  #gradients(loss: Tensor | Gradients | undefined, trained: readonly Parameter[]): Tensor[] {
    if (!loss && this.#accumulated.size === 0)
      throw new RangeError("step: give a loss, or call accumulate(loss) first");
    const fresh = loss instanceof Tensor ? dependentGradients(loss, trained) : givenGradients(loss, trained);
    return trained.map((p, i) => {
      const storage = this.#accumulated.get(p);
      const before = storage ? storedTensor(p, p.shape, storage) : null;
      const g = fresh[i];
      if (before && g) return before.add(g);
      return g ?? before ?? new Tensor(build.fill(0, p.shape, computeType(p.dtype)), p.device);
    });
  }

  /** The tensors and updates that `step` with these arguments would submit: for `explain`, and for counting kernels. */
  trace(
    loss?: Tensor | Gradients,
    also: readonly Tensor[] = [],
  ): { device: Device; tensors: Tensor[]; updates: Update[] } {
    this.#numbers.length = 0;
    this.#latest = null;
    this.#lrFactor = 1;
    const trained = this.#trained();
    const losses = loss instanceof Tensor ? [loss] : [];
    const device = deviceOf([...trained, ...losses])!;
    const gradients = this.#clip(
      this.#gradients(loss, trained).map((g, i) => {
        const keep = trainedElements(trained[i]!);
        return keep ? where(keep, g, 0) : g;
      }),
    );
    const lr = this.lr;
    const updates: Update[] = [];
    for (const [i, p] of trained.entries()) this.#update(p, gradients[i]!, lr, updates);
    if (this.#gradNorm) {
      this.#normStorage ??= device.allocate(4, "the gradients' norm");
      updates.push({ storage: this.#normStorage, value: this.#gradNorm.cast("f32").node });
    }
    return { device, tensors: [...losses, ...also], updates };
  }

  #clip(gradients: readonly Tensor[]): readonly Tensor[] {
    this.#gradNorm = null;
    if (this.#clipNorm === undefined) return gradients;
    const squares = gradients.map((g) => g.square().sum());
    this.#gradNorm = squares.reduce((a, b) => a.add(b)).sqrt();
    const factor = this.number("clipNorm", this.#clipNorm).div(this.#gradNorm.add(1e-6)).minimum(1);
    return gradients.map((g) => g.mul(factor));
  }

  /** Adds the updates of one parameter and its state; masked elements keep their value and state. */
  #update(p: Parameter, g: Tensor, lr: number, updates: Update[]): void {
    const memory = this.#state.of(p);
    const old: Record<string, Tensor> = {};
    for (const { name, shape, storage } of memory) old[name] = storedTensor(p, shape, storage);
    this.#lrFactor = this.#lrFactors.get(p)!;
    const type = computeType(p.dtype);
    const value = type === p.dtype ? p : p.cast(type);
    const rule = this.rule(value, g, old, lr * this.#lrFactor, this.#step + 1, p);
    checkRule(this.constructor.name, p, rule, old);
    const keep = trainedElements(p);
    const masked = (fresh: Tensor, before: Tensor): Tensor =>
      keep && sameShape(before.shape, p.shape) ? where(keep, fresh, before) : fresh;
    updates.push({ storage: p.storage, value: build.cast(masked(rule.value, p).node, p.dtype) });
    for (const { name, storage } of memory)
      updates.push({ storage, value: masked(rule.state[name]!, old[name]!).node });
  }

  /** Copies out the current step count and state, for a checkpoint. Rejects while there are accumulated gradients. */
  async state(): Promise<OptimizerState> {
    if (this.#accumulated.size > 0) {
      throw new Error(
        "state: accumulated gradients are no part of the state and would be lost; call step() first",
      );
    }
    const step = this.#step;
    return { step, tensors: await this.#state.save() };
  }

  /**
   * Continues from a state that `state()` returned for the same parameters in the same order; accumulated gradients are dropped.
   * The state of parameters that it does not contain becomes zero. Throws before any change if a tensor is missing, unknown or
   * of another shape.
   */
  load(state: OptimizerState): void {
    const { step, tensors } = checkOptions(this.constructor.name, state, "the one that state() returned");
    if (!(tensors instanceof Map))
      refuse(this.constructor.name, tensors, "Map of tensors", "the one that state() returned");
    if (!Number.isSafeInteger(step) || step < 0)
      throw new RangeError(`${this.constructor.name}: a state at step ${step}; need a whole number from 0`);
    this.#state.load(tensors);
    this.#step = step;
    this.#dropAccumulated();
  }
}

/** The factor of the learning rate of `p`. Throws unless it is a finite number of at least 0. */
function checkFactor(what: string, p: Parameter, of: OptimizerOptions["lrFactor"]): number {
  if (of === undefined) return 1;
  if (typeof of !== "function") refuse(`${what}: lrFactor`, of, "function", "one of a parameter: (p) => 2");
  const factor = of(p);
  return checkNumber(`${what}: lrFactor of ${p.name}`, factor, "2", factor >= 0);
}

function checkLoss(what: string, loss: Tensor | Gradients): void {
  if (!(loss instanceof Map)) checkTensors(what, [loss as Tensor]);
}

/** The given gradient of each parameter, null where there is none. Throws if there are none, or if one does not fit. */
function givenGradients(gradients: Gradients | undefined, trained: readonly Parameter[]): (Tensor | null)[] {
  if (gradients === undefined) return [];
  const found = trained.map((p) => gradients.get(p) ?? null);
  if (found.every((g) => g === null))
    throw new RangeError(
      "optimizer: no gradient was given of any parameter that it trains; nothing would be trained",
    );
  for (const [i, g] of found.entries()) {
    const { name, shape, dtype } = trained[i]!;
    if (g === null || (sameShape(g.shape, shape) && g.dtype === computeType(dtype))) continue;
    throw new RangeError(
      `optimizer: the gradient of ${name} is ${show(g.shape)} ${g.dtype}; need ${show(shape)} ${computeType(dtype)}`,
    );
  }
  return found;
}

/** The gradient for each parameter, null where the loss does not depend on it. Throws if the loss depends on none of them. */
function dependentGradients(loss: Tensor, trained: readonly Parameter[]): (Tensor | null)[] {
  const gradients = gradOrNull(loss, trained);
  if (gradients.some((g) => g !== null)) return gradients;
  const names = trained.slice(0, 3).map(({ name }) => name);
  throw new RangeError(
    `optimizer: the loss depends on none of its ${trained.length} trained parameters (${names.join(", ")}` +
      `${trained.length > 3 ? ", …" : ""}), so nothing would be trained; build the loss from the model that has them, without detach()`,
  );
}

/** The bool mask of the elements of `p` that are trained; undefined if `p` has no mask. */
function trainedElements(p: Parameter): Tensor | undefined {
  if (p.updateMask) checkMask(p, p.updateMask);
  return p.updateMask?.cast("bool");
}
