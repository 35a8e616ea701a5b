/** What optimizers share: gradients, accumulation, clipping, masks, state, and the one program per step. */
import { allocateArray, computeType } from "@tiedlora/kernels";
import * as build from "../build.ts";
import type { Device } from "../device.ts";
import { type Shape, type Storage, touch } from "../node.ts";
import { checkMask, type Parameter } from "../parameter.ts";
import type { Update } from "../plan.ts";
import { sameShape } from "../shape.ts";
import { deviceOf, execute, grad, Tensor, where } from "../tensor.ts";
import type { Schedule } from "./schedule.ts";

/** Settings that all optimizers have. */
export interface OptimizerOptions {
  /** A number, or the rate of each step. */
  readonly lr: number | Schedule;
  /** Scales all gradients down together so that their joint norm is at most this. */
  readonly clipNorm?: number;
}

/** By name: tensors that live from step to step beside a parameter, e.g. its momentum. f32 zeros at first. */
export type State = Readonly<Record<string, Tensor>>;

/** What a rule makes of one parameter in one step. */
export interface Rule {
  readonly value: Tensor;
  readonly state: State;
}

/** All that a resumed run needs. */
export interface OptimizerState {
  readonly step: number;
  /** By `name.index`, the index being the parameter's position; f32. */
  readonly tensors: ReadonlyMap<string, Float32Array>;
}

/** Updates parameters from gradients of a loss. Parameters with `requiresGrad` false are left alone. */
export abstract class Optimizer {
  readonly parameters: readonly Parameter[];
  readonly #schedule: Schedule;
  readonly #clipNorm: number | undefined;
  readonly #state = new Map<Parameter, Map<string, Storage>>();
  #accumulated = new Map<Parameter, Storage>();
  /** The numbers of this step by name, each in the shapes that were asked for. */
  readonly #numbers = new Map<string, Tensor[]>();
  #step = 0;
  #gradNorm: Tensor | null = null;
  /** The norm's own memory: a result that nobody reads would wait for the garbage collector, one every step. */
  #normStorage: Storage | null = null;

  constructor(parameters: readonly Parameter[], options: OptimizerOptions) {
    this.parameters = [...new Set(parameters)];
    if (this.parameters.length === 0) throw new RangeError("optimizer: there are no parameters to train");
    const { lr } = options;
    this.#schedule = typeof lr === "number" ? () => lr : lr;
    this.#clipNorm = options.clipNorm;
  }

  /** The names of the state tensors of each parameter. */
  protected abstract readonly stateNames: readonly string[];
  /** New value and state from the value `p` and gradient `g` of the parameter `of`; `step` counts from 1. */
  protected abstract rule(p: Tensor, g: Tensor, state: State, lr: number, step: number, of: Parameter): Rule;

  /**
   * A number handed over at run time, whatever it is: a rate of 0 must not make another program than one of 0.1. Within a
   * step the same name and `shape` is the same tensor.
   */
  protected number(name: string, value: number, shape: Shape = []): Tensor {
    let known = this.#numbers.get(name);
    if (!known) this.#numbers.set(name, (known = [new Tensor(build.runtimeScalar(value, "f32"), null)]));
    for (const tensor of known) if (sameShape(tensor.shape, shape)) return tensor;
    known.push(known[0]!.expand(shape));
    return known.at(-1)!;
  }

  /** Steps done. */
  get stepCount(): number {
    return this.#step;
  }
  /** The learning rate of the next step. */
  get lr(): number {
    return this.#schedule(this.#step);
  }
  /** The joint norm of the last step's gradients, before clipping; null unless `clipNorm` was given. The next step replaces it. */
  get gradNorm(): Tensor | null {
    return this.#gradNorm;
  }

  /**
   * Differentiates `loss`, updates all parameters, and evaluates the loss and `also` as they were before: one program.
   * Without a loss, applies what `accumulate` has gathered.
   */
  step(loss?: Tensor, also: readonly Tensor[] = []): void {
    const { device, tensors, updates } = this.trace(loss, also);
    execute(device, tensors, updates);
    if (this.#gradNorm) this.#gradNorm = new Tensor(build.buffer(this.#normStorage!, [], "f32"), device);
    for (const storage of this.#accumulated.values()) storage.buffer.free();
    this.#accumulated = new Map();
    this.#step++;
  }

  /** Adds the gradients of `loss` to those gathered so far; the next `step` applies them all. */
  accumulate(loss: Tensor): void {
    const trained = this.#trained();
    const device = deviceOf([loss, ...trained])!;
    const updates = this.#gradients(loss, trained).map((g, i): Update => {
      const p = trained[i]!;
      const storage = this.#accumulated.get(p) ?? zeroStorage(device, p, `gradient of ${p.name}`);
      this.#accumulated.set(p, storage);
      return { storage, value: g.node };
    });
    execute(device, [loss], updates);
  }

  #trained(): Parameter[] {
    const trained = this.parameters.filter((p) => p.requiresGrad);
    if (trained.length === 0)
      throw new RangeError("optimizer: every parameter is frozen; set requiresGrad on one");
    return trained;
  }

  /** Gradients of the loss plus what was accumulated. */
  #gradients(loss: Tensor | undefined, trained: readonly Parameter[]): Tensor[] {
    if (!loss && this.#accumulated.size === 0)
      throw new RangeError("step: give a loss, or call accumulate(loss) first");
    const fresh = loss ? grad(loss, trained) : [];
    return trained.map((p, i) => {
      const storage = this.#accumulated.get(p);
      const before = storage ? stateTensor(p, storage) : null;
      const g = fresh[i];
      if (before && g) return before.add(g);
      return g ?? before ?? new Tensor(build.fill(0, p.shape, computeType(p.dtype)), p.device);
    });
  }

  /** What `step` with these arguments would submit: for `explain`, and for counting kernels. */
  trace(
    loss?: Tensor,
    also: readonly Tensor[] = [],
  ): { device: Device; tensors: Tensor[]; updates: Update[] } {
    this.#numbers.clear();
    const trained = this.#trained();
    const device = deviceOf([...trained, ...(loss ? [loss] : [])])!;
    const gradients = this.#clip(this.#gradients(loss, trained));
    const lr = this.lr;
    const updates = trained.flatMap((p, i) => this.#update(p, gradients[i]!, lr, device));
    if (this.#gradNorm) {
      this.#normStorage ??= device.allocate(4, "the gradients' norm");
      updates.push({ storage: this.#normStorage, value: this.#gradNorm.node });
    }
    return { device, tensors: [...(loss ? [loss] : []), ...also], updates };
  }

  #clip(gradients: readonly Tensor[]): readonly Tensor[] {
    this.#gradNorm = null;
    if (this.#clipNorm === undefined) return gradients;
    const squares = gradients.map((g) => g.square().sum());
    this.#gradNorm = squares.reduce((a, b) => a.add(b)).sqrt();
    const factor = this.number("clipNorm", this.#clipNorm).div(this.#gradNorm.add(1e-6)).minimum(1);
    return gradients.map((g) => g.mul(factor));
  }

  /** The updates of one parameter and its state; masked elements keep both. */
  #update(p: Parameter, g: Tensor, lr: number, device: Device): Update[] {
    const storages = this.#stateOf(p, device);
    const old: Record<string, Tensor> = {};
    for (const name of this.stateNames) old[name] = stateTensor(p, storages.get(name)!);
    const { value, state } = this.rule(p.cast(computeType(p.dtype)), g, old, lr, this.#step + 1, p);
    if (p.updateMask) checkMask(p, p.updateMask);
    const keep = p.updateMask?.cast("bool");
    const masked = (fresh: Tensor, before: Tensor): Tensor => (keep ? where(keep, fresh, before) : fresh);
    const updates = [{ storage: p.storage, value: masked(value, p).cast(p.dtype).node }];
    for (const name of this.stateNames)
      updates.push({ storage: storages.get(name)!, value: masked(state[name]!, old[name]!).node });
    return updates;
  }

  #stateOf(p: Parameter, device: Device): Map<string, Storage> {
    let state = this.#state.get(p);
    if (!state) {
      state = new Map(this.stateNames.map((name) => [name, zeroStorage(device, p, `${name} of ${p.name}`)]));
      this.#state.set(p, state);
    }
    return state;
  }

  /** Copies out the step count and all state, for a checkpoint. */
  async state(): Promise<OptimizerState> {
    const tensors = new Map<string, Float32Array>();
    for (const [index, p] of this.parameters.entries()) {
      for (const [name, storage] of this.#state.get(p) ?? []) {
        tensors.set(`${name}.${index}`, new Float32Array(await storage.buffer.read(0, 4 * p.size)));
      }
    }
    return { step: this.#step, tensors };
  }

  /** Continues from a state that `state()` gave for the same parameters in the same order. */
  load({ step, tensors }: OptimizerState): void {
    for (const [key, { length }] of tensors) {
      const [name, index] = key.split(".");
      if (this.stateNames.includes(name!) && this.parameters[Number(index)]?.size === length) continue;
      throw new RangeError(`optimizer state "${key}" (${length} values) fits no parameter of this optimizer`);
    }
    this.#step = step;
    for (const [key, values] of tensors) {
      const [name, index] = key.split(".");
      const p = this.parameters[Number(index)]!;
      const storage = this.#stateOf(p, p.device!).get(name!)!;
      touch(storage);
      storage.buffer.write(values);
    }
  }
}

/** What is kept for `p`, as it is now. */
function stateTensor(p: Parameter, storage: Storage): Tensor {
  return new Tensor(build.buffer(storage, p.shape, computeType(p.dtype)), p.device);
}

/** Zeros of the shape of `p`, in the type that arithmetic on it is done in. */
function zeroStorage(device: Device, p: Parameter, name: string): Storage {
  const zeros = allocateArray(computeType(p.dtype), p.size);
  const storage = device.allocate(zeros.byteLength, name);
  storage.buffer.write(zeros);
  return storage;
}
