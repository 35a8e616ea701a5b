/**
 * What an optimizer keeps from step to step: for each parameter the tensors that its rule names, of the shapes that it
 * names, in memory of their own; and their way into a checkpoint and back. How they change is the rule's business.
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

/** By name: tensors that live from step to step beside a parameter, e.g. its momentum. Zeros at first. */
export type State = Readonly<Record<string, Tensor>>;

/** The shape of each state tensor of one parameter, by name: the parameter's own, a row, a column, [] for one number. */
export type StateShapes = Readonly<Record<string, Shape>>;

/** A state tensor on the host, row-major: f32, or f64 for a parameter in f64. */
export interface StateValues {
  /** Lengths of the axes. */
  readonly shape: Shape;
  /** As many numbers as the shape has. */
  readonly values: TypedArray;
}

/** All that a resumed run needs. */
export interface OptimizerState {
  /** Steps done. */
  readonly step: number;
  /** By `name.index`, the index being the parameter's position. */
  readonly tensors: ReadonlyMap<string, StateValues>;
}

/** Memory for one value of `shape` beside `p`, zeros at first, in the type that arithmetic on `p` is done in. */
export function zeroStorage(p: Parameter, shape: Shape, name: string): Storage {
  const zeros = allocateArray(computeType(p.dtype), product(shape));
  const storage = p.device!.allocate(zeros.byteLength, `${name} of ${p.name}`);
  storage.buffer.write(zeros);
  return storage;
}

/** What is in such memory now. */
export function storedTensor(p: Parameter, shape: Shape, storage: Storage): Tensor {
  return new Tensor(build.buffer(storage, shape, computeType(p.dtype)), p.device);
}

/** The state of all parameters of one optimizer. */
export class StateMemory {
  readonly #owner: string;
  readonly #parameters: readonly Parameter[];
  readonly #shapesOf: (p: Parameter) => StateShapes;
  readonly #kept = new Map<Parameter, Map<string, { readonly shape: Shape; readonly storage: Storage }>>();

  /** `owner` is the optimizer's name, for messages. */
  constructor(owner: string, parameters: readonly Parameter[], shapesOf: (p: Parameter) => StateShapes) {
    this.#owner = owner;
    this.#parameters = parameters;
    this.#shapesOf = shapesOf;
  }

  /** The memory of each state tensor of `p`; made where this is the first step that trains it. */
  of(p: Parameter): ReadonlyMap<string, { readonly shape: Shape; readonly storage: Storage }> {
    let kept = this.#kept.get(p);
    if (!kept) {
      kept = new Map();
      for (const [name, shape] of Object.entries(this.#shapesOf(p))) {
        checkShape(`${this.#owner}: state "${name}" of ${p.name}`, shape);
        kept.set(name, { shape, storage: zeroStorage(p, shape, name) });
      }
      this.#kept.set(p, kept);
    }
    return kept;
  }

  /** Copies everything out, as it is when this is called. */
  async save(): Promise<Map<string, StateValues>> {
    const reads = this.#parameters.flatMap((p, index) =>
      [...(this.#kept.get(p) ?? [])].map(async ([name, { shape, storage }]) => {
        const dtype = computeType(p.dtype);
        const bytes = await storage.buffer.read(0, BYTES[dtype] * product(shape));
        return [`${name}.${index}`, { shape, values: decode(bytes, dtype, product(shape)) }] as const;
      }),
    );
    return new Map(await Promise.all(reads));
  }

  /** Replaces everything by what `save` gave for the same parameters in the same order. On an error nothing is replaced. */
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
      for (const [name, { shape, storage }] of given.has(p) ? this.of(p) : (this.#kept.get(p) ?? [])) {
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
