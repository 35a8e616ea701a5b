/**
 * The state that an optimizer keeps between steps: for each parameter, the tensors that its rule declares by name and shape,
 * each in its own memory. They can be saved to a checkpoint and loaded from it. Only the rule determines how they change.
 */
import {
  allocateArray,
  BYTES,
  computeType,
  decode,
  encode,
  type Parameter,
  product,
  sameShape,
  type Shape,
  type Storage,
  Tensor,
  type TypedArray,
} from "@tiedlora/core";
import { build, checkShape, show, touch } from "@tiedlora/core/extend";

/** The tensors, by name, that an optimizer keeps for a parameter between steps, e.g. its momentum. Initially zero. */
export type State = Readonly<Record<string, Tensor>>;

/** The shape of each state tensor of one parameter, by name: e.g. that of the parameter, a row, a column, or [] for a number. */
export type StateShapes = Readonly<Record<string, Shape>>;

/** A state tensor on the host, row-major: f32, or f64 for a parameter in f64. */
export interface StateValues {
  /** The lengths of the axes. */
  readonly shape: Shape;
  /** The elements, as many as the shape has. */
  readonly values: TypedArray;
}

/** Everything that an optimizer needs to resume a run. */
export interface OptimizerState {
  /** The number of steps done. */
  readonly step: number;
  /** The state tensors by `name.index`, where `index` is the position of the parameter in `Optimizer.parameters`. */
  readonly tensors: ReadonlyMap<string, StateValues>;
}

/** Allocates zeroed memory on the device of `p` for a tensor of `shape` in the compute type of `p`. */
export function zeroStorage(p: Parameter, shape: Shape, name: string): Storage {
  const zeros = allocateArray(computeType(p.dtype), product(shape));
  const storage = p.device!.allocate(zeros.byteLength, `${name} of ${p.name}`);
  storage.buffer.write(zeros);
  return storage;
}

/** A tensor over memory that `zeroStorage` allocated, with its current content. */
export function storedTensor(p: Parameter, shape: Shape, storage: Storage): Tensor {
  return new Tensor(build.buffer(storage, shape, computeType(p.dtype)), p.device);
}

/** Memory of one state tensor. */
interface StateTensor {
  readonly name: string;
  readonly shape: Shape;
  readonly storage: Storage;
}

/** The state tensors of all parameters of one optimizer. */
export class StateMemory {
  readonly #owner: string;
  readonly #parameters: readonly Parameter[];
  readonly #shapesOf: (p: Parameter) => StateShapes;
  readonly #kept = new Map<Parameter, readonly StateTensor[]>();

  /** `owner` is the optimizer's name, for messages. */
  constructor(owner: string, parameters: readonly Parameter[], shapesOf: (p: Parameter) => StateShapes) {
    this.#owner = owner;
    this.#parameters = parameters;
    this.#shapesOf = shapesOf;
  }

  /** The memory of each state tensor of `p`, allocated in the first call for `p`. */
  of(p: Parameter): readonly StateTensor[] {
    let kept = this.#kept.get(p);
    if (!kept) {
      kept = Object.entries(this.#shapesOf(p)).map(([name, shape]) => {
        checkShape(`${this.#owner}: state "${name}" of ${p.name}`, shape);
        return { name, shape, storage: zeroStorage(p, shape, name) };
      });
      this.#kept.set(p, kept);
    }
    return kept;
  }

  /** Copies out all state tensors as they are when this is called. */
  async save(): Promise<Map<string, StateValues>> {
    const reads = this.#parameters.flatMap((p, index) =>
      (this.#kept.get(p) ?? []).map(async ({ name, shape, storage }) => {
        const dtype = computeType(p.dtype);
        const bytes = await storage.buffer.read(0, BYTES[dtype] * product(shape));
        return [`${name}.${index}`, { shape, values: decode(bytes, dtype, product(shape)) }] as const;
      }),
    );
    return new Map(await Promise.all(reads));
  }

  /**
   * Replaces all state tensors by those that `save` returned for the same parameters in the same order; those of parameters that
   * `tensors` does not contain become zero. Throws RangeError before any change if a tensor is missing, unknown or of another
   * shape.
   */
  load(tensors: OptimizerState["tensors"]): void {
    const given = new Map<Parameter, Map<string, StateValues>>();
    for (const [key, tensor] of tensors) {
      const [, name = "", index] = /^(.*)\.(\d+)$/.exec(key) ?? [];
      const p = this.#parameters[Number(index)];
      const shapes: StateShapes = p ? this.#shapesOf(p) : {};
      const shape = Object.hasOwn(shapes, name) ? shapes[name] : undefined;
      const { length } = tensor.values;
      if (!p || !shape || !sameShape(shape, tensor.shape) || length !== product(shape)) {
        const expected = p && shape ? `${show(shape)} for ${p.name}` : `one of [${this.#keys().join(", ")}]`;
        throw new RangeError(
          `${this.#owner}: state "${key}" of shape ${show(tensor.shape)} with ${length} values; expected ${expected}. ` +
            `Load the state of the same optimizer over the same parameters in the same order`,
        );
      }
      given.set(p, (given.get(p) ?? new Map<string, StateValues>()).set(name, tensor));
    }
    for (const [p, values] of given) {
      const missing = Object.keys(this.#shapesOf(p)).filter((name) => !values.has(name));
      if (missing.length > 0)
        throw new RangeError(
          `${this.#owner}: the state of ${p.name} lacks ${missing.join(", ")}; it is not whole`,
        );
    }
    for (const p of this.#parameters) {
      for (const { name, shape, storage } of given.has(p) ? this.of(p) : (this.#kept.get(p) ?? [])) {
        const values = given.get(p)?.get(name)?.values ?? new Float32Array(product(shape));
        touch(storage);
        storage.buffer.write(encode(values, computeType(p.dtype)));
      }
    }
  }

  #keys(): string[] {
    return this.#parameters.flatMap((p, i) => Object.keys(this.#shapesOf(p)).map((name) => `${name}.${i}`));
  }
}
