/** Random loop kernels: any valid body over any strides, padding and storage types. */
import type { ComputeType, DType, Instr, LoopKernel, Operand, Store } from "@tiedlora/kernels";
import fc from "fast-check";
import type { TestBuffer } from "./run.ts";
import { dense, extent } from "./run.ts";

export interface KernelCase {
  readonly kernel: LoopKernel;
  readonly buffers: readonly TestBuffer[];
  readonly scalars: readonly number[];
}

type Draw = <T>(arbitrary: fc.Arbitrary<T>) => T;
type Type = Exclude<ComputeType, "f64">;

const computeOf: { readonly [D in DType]: Type } = {
  f32: "f32",
  f16: "f32",
  bf16: "f32",
  f64: "f32",
  i32: "i32",
  u32: "u32",
  bool: "bool",
};

class CaseBuilder {
  readonly body: Instr[] = [];
  readonly buffers: TestBuffer[] = [];
  private readonly draw: Draw;
  private readonly dims: readonly number[];
  private readonly outerRank: number;

  constructor(draw: Draw, outer: readonly number[], inner: readonly number[]) {
    this.draw = draw;
    this.dims = [...outer, ...inner];
    this.outerRank = outer.length;
  }

  push(instr: Instr): number {
    return this.body.push(instr) - 1;
  }

  typeOf(i: number): Type {
    return this.body[i]!.dtype as Type;
  }

  /** Values of a type so far; there is always a constant of each. */
  of(type: Type): number {
    const all = this.body.flatMap((_, i) => (this.typeOf(i) === type ? [i] : []));
    return this.draw(fc.constantFrom(...all));
  }

  private range(length: number): readonly [number, number] | null {
    const kind = this.draw(fc.integer({ min: 0, max: 7 }));
    if (kind > 1) return null;
    const from = this.draw(fc.integer({ min: -1, max: length }));
    return [from, this.draw(fc.integer({ min: from, max: length + 1 }))];
  }

  load(dtype: DType): void {
    const { draw, dims } = this;
    const order = draw(
      fc.shuffledSubarray(
        dims.map((_, i) => i),
        { minLength: dims.length },
      ),
    );
    const strides = dims.map(() => 0);
    let stride = draw(fc.constantFrom(1, 1, 1, 2, 3));
    const natural = draw(fc.boolean());
    for (const d of natural ? order.map((_, i) => dims.length - 1 - i) : order) {
      const kind = draw(fc.integer({ min: 0, max: 9 }));
      if (kind < 2) continue; // broadcast
      strides[d] = kind === 2 ? -stride : stride;
      stride *= dims[d]!;
    }
    const valid = dims.map((length) => this.range(length));
    const { offset, length } = extent(strides, dims);
    const buffer = this.buffers.push({ dtype, length: length + 3 }) - 1;
    const view = { offset, strides, ...(valid.some((r) => r !== null) && { valid }) };
    this.push({ op: "load", from: { buffer, dtype, view }, dtype: computeOf[dtype] });
  }

  random(): void {
    const { draw } = this;
    const kinds = ["unary", "binary", "binary", "compare", "where", "cast", "index", "integer", "logic"];
    const hasInner = this.dims.length > this.outerRank;
    switch (draw(fc.constantFrom(...kinds, ...(hasInner ? ["reduce", "reduce"] : [])))) {
      case "unary": {
        const op = draw(fc.constantFrom("neg", "abs", "tanh", "sin", "cos", "erf", "floor"));
        this.push({ op, a: this.of("f32"), dtype: "f32" });
        return;
      }
      case "binary": {
        const op = draw(fc.constantFrom("add", "sub", "mul", "max", "min"));
        this.push({ op, a: this.of("f32"), b: this.of("f32"), dtype: "f32" });
        this.push({ op: "tanh", a: this.body.length - 1, dtype: "f32" });
        return;
      }
      case "compare": {
        const type = draw(fc.constantFrom<Type>("f32", "i32", "u32", "bool"));
        const op = draw(fc.constantFrom("lt", "le", "eq"));
        this.push({ op, a: this.of(type), b: this.of(type), dtype: "bool" });
        return;
      }
      case "where": {
        const type = draw(fc.constantFrom<Type>("f32", "i32", "u32", "bool"));
        this.push({ op: "where", a: this.of("bool"), b: this.of(type), c: this.of(type), dtype: type });
        return;
      }
      case "cast":
        return this.cast();
      case "index":
        if (this.dims.length > 0) {
          const axis = draw(fc.integer({ min: 0, max: this.dims.length - 1 }));
          this.push({ op: "index", axis, dtype: "i32" });
        }
        return;
      case "integer": {
        const type = draw(fc.constantFrom<Type>("i32", "u32"));
        const op = draw(
          fc.constantFrom("add", "sub", "mul", "div", "mod", "max", "min", "and", "or", "xor", "shl", "shr"),
        );
        this.push({ op, a: this.of(type), b: this.of(type), dtype: type });
        return;
      }
      case "logic":
        if (draw(fc.boolean())) this.push({ op: "not", a: this.of("bool"), dtype: "bool" });
        else {
          const op = draw(fc.constantFrom("and", "or", "xor"));
          this.push({ op, a: this.of("bool"), b: this.of("bool"), dtype: "bool" });
        }
        return;
      default:
        return this.reduce();
    }
  }

  private cast(): void {
    const { draw } = this;
    const from = draw(fc.constantFrom<Type>("f32", "i32", "u32", "bool"));
    const to = draw(fc.constantFrom<DType>("f32", "f16", "bf16", "i32", "u32", "bool"));
    // a float out of the integer's range is unspecified, and near an integer truncation amplifies rounding
    if (from === "f32" && (to === "i32" || to === "u32" || to === "bool")) return;
    if (from !== "f32" && from !== "bool" && (to === "f16" || to === "bf16")) return;
    this.push({ op: "cast", a: this.of(from), to, dtype: computeOf[to] });
  }

  private reduce(): void {
    const { draw } = this;
    const type = draw(fc.constantFrom<Type>("f32", "f32", "i32", "u32", "bool"));
    const kinds =
      type === "f32" || type === "bool"
        ? (["sum", "max", "min"] as const)
        : (["sum", "prod", "max", "min"] as const);
    const kind = type === "bool" ? draw(fc.constantFrom("max", "min")) : draw(fc.constantFrom(...kinds));
    const a = this.push({ op: "reduce", kind, a: this.of(type), dtype: type });
    if (type === "f32") {
      const scale = this.push({ op: "const", value: 0.125, dtype: "f32" });
      const scaled = this.push({ op: "mul", a, b: scale, dtype: "f32" });
      this.push({ op: "tanh", a: scaled, dtype: "f32" });
    }
  }

  /** Whether the value is the same for all inner indices. */
  isRow(i: number): boolean {
    const instr = this.body[i]!;
    if (instr.op === "reduce") return true;
    if (instr.op === "index") return instr.axis < this.outerRank;
    if (instr.op === "load") {
      const { strides, valid } = instr.from.view;
      return strides.every((s, d) => d < this.outerRank || (s === 0 && (valid?.[d] ?? null) === null));
    }
    const operands = [
      ...("a" in instr ? [instr.a] : []),
      ...("b" in instr ? [instr.b] : []),
      ...("c" in instr ? [instr.c] : []),
    ];
    return operands.every((a) => this.isRow(a));
  }

  store(value: number): Store {
    const { draw, dims } = this;
    const row = this.isRow(value) && draw(fc.boolean());
    const shape = row ? dims.slice(0, this.outerRank) : dims;
    const type = this.typeOf(value);
    const dtype = type === "f32" ? draw(fc.constantFrom<DType>("f32", "f32", "f16", "bf16")) : type;
    const permuted = draw(fc.integer({ min: 0, max: 4 })) === 0;
    const order = permuted
      ? draw(
          fc.shuffledSubarray(
            shape.map((_, i) => i),
            { minLength: shape.length },
          ),
        )
      : shape.map((_, i) => i);
    const strides = shape.map(() => 0);
    dense(order.map((d) => shape[d]!)).forEach((s, i) => (strides[order[i]!] = s));
    const valid =
      draw(fc.integer({ min: 0, max: 5 })) === 0 ? shape.map((length) => this.range(length)) : undefined;
    const { offset, length } = extent(strides, shape);
    const buffer = this.buffers.push({ dtype, length: length + 2 }) - 1;
    const to: Operand = { buffer, dtype, view: { offset, strides, ...(valid && { valid }) } };
    return { to, value };
  }
}

/** `maxLength` bounds an axis. */
export function kernelCase(maxLength: number): fc.Arbitrary<KernelCase> {
  return fc.gen().map((gen): KernelCase => {
    const draw: Draw = (arbitrary) => gen(() => arbitrary);
    const axis = fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: maxLength }));
    const outer = draw(fc.array(axis, { maxLength: 3 }));
    const inner = draw(fc.array(axis, { maxLength: 2 }));
    const builder = new CaseBuilder(draw, outer, inner);
    const scalars = [0.75, -3];
    builder.push({ op: "const", value: draw(fc.constantFrom(0.5, -1, 2)), dtype: "f32" });
    builder.push({ op: "const", value: draw(fc.integer({ min: -3, max: 5 })), dtype: "i32" });
    builder.push({ op: "const", value: draw(fc.integer({ min: 0, max: 33 })), dtype: "u32" });
    builder.push({ op: "const", value: draw(fc.integer({ min: 0, max: 1 })), dtype: "bool" });
    builder.push({ op: "scalar", slot: 0, dtype: "f32" });
    builder.push({ op: "scalar", slot: 1, dtype: "i32" });
    const loads = draw(fc.integer({ min: 1, max: 3 }));
    for (let i = 0; i < loads; i++) {
      builder.load(draw(fc.constantFrom<DType>("f32", "f32", "f32", "f16", "bf16", "i32", "u32", "bool")));
    }
    const steps = draw(fc.integer({ min: 0, max: 10 }));
    for (let i = 0; i < steps; i++) builder.random();
    const last = builder.body.length - 1;
    const stores = [builder.store(last)];
    if (draw(fc.boolean())) stores.push(builder.store(draw(fc.integer({ min: 0, max: last }))));
    return {
      kernel: { type: "loop", outer, inner, body: builder.body, stores },
      buffers: builder.buffers,
      scalars,
    };
  });
}

/** The operand of axes with `lengths`, stored in the same order and with the same gaps as that of axes with `before`. */
function resizedOperand(operand: Operand, before: readonly number[], lengths: readonly number[]): Operand {
  const { view } = operand;
  const strides = [...view.strides];
  const order = [...strides.keys()].filter((d) => strides[d] !== 0);
  order.sort((a, b) => Math.abs(strides[a]!) - Math.abs(strides[b]!));
  let stride = Math.abs(strides[order[0]!] ?? 1);
  for (const d of order) {
    strides[d] = Math.sign(strides[d]!) * stride;
    stride *= lengths[d]!;
  }
  const valid = view.valid?.map((range, d): readonly [number, number] | null => {
    if (range === null) return null;
    const moved = (i: number): number => (i > before[d]! / 2 ? i + lengths[d]! - before[d]! : i);
    return [moved(range[0]), Math.max(moved(range[0]), moved(range[1]))];
  });
  const { offset } = extent(strides, lengths.slice(0, strides.length));
  return { ...operand, view: { ...view, offset, strides, ...(valid && { valid }) } };
}

/** The same kernel over axes of other lengths, all of them longer than 1. */
export function resized(
  { kernel, buffers, scalars }: KernelCase,
  to: (length: number) => number,
): KernelCase {
  const before = [...kernel.outer, ...kernel.inner];
  const lengths = before.map(to);
  const sized = [...buffers];
  const move = (operand: Operand, gap: number): Operand => {
    const moved = resizedOperand(operand, before, lengths);
    const { length } = extent(moved.view.strides, lengths.slice(0, moved.view.strides.length));
    sized[operand.buffer] = { ...sized[operand.buffer]!, length: length + gap };
    return moved;
  };
  const body = kernel.body.map((instr) =>
    instr.op === "load" ? { ...instr, from: move(instr.from, 3) } : instr,
  );
  const stores = kernel.stores.map((store) => ({ ...store, to: move(store.to, 2) }));
  return {
    kernel: { ...kernel, outer: kernel.outer.map(to), inner: kernel.inner.map(to), body, stores },
    buffers: sized,
    scalars,
  };
}
