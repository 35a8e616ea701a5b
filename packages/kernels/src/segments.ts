/**
 * A program that consists of programs, which run one after another and hand values on in buffers. Equal parts of it are one program.
 * @module
 */
import type { Backend, DeviceBuffer, Executable } from "./backend.ts";
import { getOrCreate } from "./collections.ts";
import { type BufferSpec, mapBuffers, type Program, type Step } from "./kernel.ts";

/** A run-time number of a segment: `own`, plus the number of the whole in slot `given`, if there is one. */
export interface Given {
  readonly own: number;
  readonly given: number | null;
}

/** One run of a program: for each of its inputs and outputs, a thing that stands for the value that it reads or writes there. */
export interface Run {
  /** The program, and its compiled form once that is known; null if it has no steps. */
  readonly of: { readonly program: Program; readonly executable: Executable | null };
  readonly reads: readonly object[];
  readonly writes: readonly object[];
  readonly scalars: readonly Given[];
}

/** A run with the numbers of its buffers among those of the whole: inputs, memory that values are handed on in, outputs. */
interface Segment extends Omit<Run, "reads" | "writes"> {
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
}

interface Whole {
  readonly segments: readonly Segment[];
  /** Bytes of each. */
  readonly handedOn: readonly number[];
  readonly inputs: number;
  readonly outputs: number;
}

/**
 * Memory for values that are handed on. All programs of a backend use it in turn, as they run in order; it is freed with the last of them. A
 * program whose parts hand values on themselves uses other memory than these: that of the next level.
 */
export class HandedOn {
  readonly #backend: Backend;
  /** By level, and by size. */
  readonly #levels = new Map<number, Map<number, DeviceBuffer[]>>();
  #users = 0;
  /** How often all of it was freed. */
  age = 0;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** One more program hands values on in it. */
  use(): void {
    this.#users++;
  }

  /** A buffer for each of `sizes`, in bytes. Throws if there is no memory for them. */
  take(sizes: readonly number[], level: number): DeviceBuffer[] {
    const bySize = getOrCreate(this.#levels, level, () => new Map<number, DeviceBuffer[]>());
    const taken = new Map<number, number>();
    return sizes.map((bytes) => {
      const number = taken.get(bytes) ?? 0;
      taken.set(bytes, number + 1);
      return (getOrCreate(bySize, bytes, () => [])[number] ??= this.#backend.alloc(bytes, true));
    });
  }

  /** One program less does; the last one frees it. */
  leave(): void {
    if (--this.#users > 0) return;
    for (const bySize of this.#levels.values())
      for (const buffers of bySize.values()) for (const buffer of buffers) buffer.free();
    this.#levels.clear();
    this.age++;
  }
}

/** A slice or padding of a graph. */
interface Window {
  readonly shape: readonly number[];
}

/** Where a window of a segment starts along an axis. */
interface Start extends Given {
  /** Whether the segment is always given it. */
  readonly isSliding: boolean;
}

/** The run-time numbers of a whole, and which of them a segment is given. */
export class Numbers {
  readonly #starts: readonly number[];
  readonly #slots: ReadonlyMap<object | number, number>;
  readonly #firsts = new Map<object, number>();

  /** `starts` has, per axis of each of `windows` in turn, where it starts; `moving` are the indices of those that are given at run time. */
  constructor(
    { scalars, windows }: { readonly scalars: readonly object[]; readonly windows: readonly Window[] },
    starts: readonly number[],
    moving: ReadonlySet<number>,
  ) {
    this.#starts = starts;
    this.#slots = new Map([...scalars, ...moving].map((one, slot) => [one, slot]));
    let next = 0;
    for (const window of windows) {
      this.#firsts.set(window, next);
      next += window.shape.length;
    }
  }

  /** The number of a scalar of the whole. */
  slotOf(scalar: object): number {
    return this.#slots.get(scalar)!;
  }

  /**
   * Where the windows of a segment start, along each axis of each in turn; `origins` are those of the whole. Those in `sliding` slide, by their
   * first axis, along the axis of their origin that it gives, and are whole along all others.
   */
  startsOf<W extends Window>(
    windows: readonly W[],
    origins: ReadonlyMap<W, object>,
    sliding: ReadonlyMap<W, number>,
  ): Start[] {
    const starts: Start[] = [];
    for (const window of windows) {
      const first = this.#firsts.get(origins.get(window)!)!;
      const along = sliding.get(window);
      for (let axis = 0; axis < window.shape.length; axis++) {
        const at = first + (along ?? axis);
        if (along !== undefined && axis > 0) starts.push({ own: 0, given: null, isSliding: false });
        else starts.push({ own: this.#starts[at]!, given: this.#slots.get(at) ?? null, isSliding: along !== undefined }); // prettier-ignore
      }
    }
    return starts;
  }
}

/** Runs programs in order. */
export class Segmented implements Executable {
  readonly tempBytes: number;
  /** One more than that of any part which is such a program itself; 0 if none is. */
  readonly #level: number;
  readonly #whole: Whole;
  readonly #memory: HandedOn;
  readonly #freed: () => void;
  /** The buffers of values that are handed on, and the age of the memory that they are of. */
  #taken: readonly DeviceBuffer[] = [];
  #age = -1;

  /** `inputs` and `outputs` are what stands for those of the whole. `freed` is called when nothing needs the programs of `runs` any more. */
  constructor(
    runs: readonly Run[],
    inputs: readonly object[],
    outputs: readonly object[],
    memory: HandedOn,
    freed: () => void,
  ) {
    this.#whole = numbered(runs, inputs, outputs);
    this.tempBytes = this.#whole.handedOn.reduce((sum, bytes) => sum + bytes, 0);
    const levels = runs.map(({ of: { executable: part } }) =>
      part instanceof Segmented ? part.#level + 1 : 0,
    );
    this.#level = Math.max(0, ...levels);
    this.#memory = memory;
    this.#freed = freed;
    memory.use();
  }

  run(inputs: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[], scalars: Float64Array): void {
    if (this.#age !== this.#memory.age) {
      this.#taken = this.#memory.take(this.#whole.handedOn, this.#level);
      this.#age = this.#memory.age;
    }
    const buffers = inputs.concat(this.#taken, outputs);
    const bufferOf = (number: number): DeviceBuffer => buffers[number]!;
    for (const { of, inputs: reads, outputs: writes, scalars: own } of this.#whole.segments) {
      const values = new Float64Array(own.length);
      own.forEach((one, i) => (values[i] = one.own + (one.given === null ? 0 : scalars[one.given]!)));
      of.executable?.run(reads.map(bufferOf), writes.map(bufferOf), values);
    }
  }

  free(): void {
    this.#memory.leave();
    this.#freed();
  }

  /** All steps as one program, for reports. Run-time numbers have the slots that they have in the parts, whose temporaries share memory. */
  get program(): Program {
    const { segments, inputs, outputs, handedOn } = this.#whole;
    const buffers: BufferSpec[] = [
      ...Array.from({ length: inputs }, (): BufferSpec => ({ kind: "input", bytes: 0 })),
      ...handedOn.map((bytes): BufferSpec => ({ kind: "temp", bytes })),
      ...Array.from({ length: outputs }, (): BufferSpec => ({ kind: "output", bytes: 0 })),
    ];
    const before = buffers.length;
    const steps = segments.flatMap(({ of: { program }, inputs: reads, outputs: writes }): Step[] => {
      let [nextInput, nextOutput, next] = [0, 0, before];
      const numbers = program.buffers.map((spec) => {
        const number = spec.kind === "input" ? reads[nextInput++]! : spec.kind === "output" ? writes[nextOutput++]! : next++; // prettier-ignore
        const known = buffers[number];
        buffers[number] = { kind: known?.kind ?? "temp", bytes: Math.max(known?.bytes ?? 0, spec.bytes) };
        return number;
      });
      return program.steps.map((step) => mapBuffers(step, (buffer) => numbers[buffer]!));
    });
    return { buffers, scalars: 0, steps };
  }
}

/** Numbers the buffers of `runs`. Values that are handed on share memory if they have one size, and one is last read before the other is written. */
function numbered(runs: readonly Run[], inputs: readonly object[], outputs: readonly object[]): Whole {
  const lastReads = new Map<object, number>();
  runs.forEach(({ reads }, at) => reads.forEach((value) => lastReads.set(value, at)));
  const numbers = new Map<object, number>(inputs.map((value, i) => [value, i]));
  const handedOn: number[] = [];
  const free = new Map<number, number[]>(); // by size
  const [given, returned] = [new Set(inputs), new Map(outputs.map((value, i) => [value, i]))];
  runs.forEach(({ of: { program }, reads, writes }, at) => {
    let next = 0;
    for (const { kind, bytes } of program.buffers) {
      if (kind !== "output") continue;
      const value = writes[next++]!;
      if (given.has(value) || returned.has(value)) continue;
      numbers.set(value, free.get(bytes)?.pop() ?? inputs.length + handedOn.push(bytes) - 1);
    }
    for (const value of new Set(reads)) {
      const number = numbers.get(value);
      if (lastReads.get(value) !== at || number === undefined || given.has(value)) continue;
      getOrCreate(free, handedOn[number - inputs.length]!, () => []).push(number);
    }
  });
  const numberOf = (value: object): number =>
    numbers.get(value) ?? inputs.length + handedOn.length + returned.get(value)!;
  const segments = runs.map(({ reads, writes, ...rest }): Segment => {
    return { ...rest, inputs: reads.map(numberOf), outputs: writes.map(numberOf) };
  });
  return { segments, handedOn, inputs: inputs.length, outputs: outputs.length };
}
