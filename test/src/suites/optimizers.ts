/**
 * Two optimizers whose state does not have the parameter's shape, written with the public interface alone: rules other than
 * SGD's and AdamW's must work on every backend too. They are examples of such rules, not part of the product.
 */
import { type Parameter, type Shape, type Tensor, where } from "@tiedlora/core";
import * as optim from "@tiedlora/nn/optim";

/**
 * Adafactor (Shazeer and Stern 2018) without its relative step sizes: the second moment of a matrix is kept as the means
 * of its rows and of its columns, v[i, j] ≈ row[i] · column[j] / mean(row). For other shapes it is kept whole.
 */
export class Adafactor extends optim.Optimizer {
  protected stateShapes({ shape }: Parameter): optim.StateShapes {
    return shape.length === 2 ? { row: [shape[0]!], column: [shape[1]!] } : { v: shape };
  }

  protected rule(p: Tensor, g: Tensor, state: optim.State, lr: number, step: number): optim.Rule {
    const fresh = this.number("1 - decay", step ** -0.8);
    const decayed = (old: Tensor, now: Tensor): Tensor => old.add(now.sub(old).mul(fresh));
    const squares = g.square().add(1e-30);
    const next: Record<string, Tensor> =
      p.rank === 2
        ? { row: decayed(state.row!, squares.mean(1)), column: decayed(state.column!, squares.mean(0)) }
        : { v: decayed(state.v!, squares) };
    const v = next.v ?? next.row!.div(next.row!.mean()).unsqueeze(1).mul(next.column!);
    return { value: p.sub(g.mul(v.rsqrt()).mul(this.number("lr", lr))), state: next };
  }
}

/**
 * SM3-I (Anil et al. 2019): keeps, for each axis, the largest accumulated square in each slice (in a vector: of each element). A
 * scalar is a vector of one element.
 */
export class SM3 extends optim.Optimizer {
  protected stateShapes({ shape }: Parameter): optim.StateShapes {
    return Object.fromEntries(axesOf(shape).map((length, axis) => [`axis${axis}`, [length]]));
  }

  protected rule(p: Tensor, g: Tensor, state: optim.State, lr: number): optim.Rule {
    const axes = axesOf(p.shape);
    const along = (axis: number): Tensor =>
      state[`axis${axis}`]!.reshape(axes.map((length, i) => (i === axis ? length : 1)));
    const bound = axes.map((_, axis) => along(axis)).reduce((a, b) => a.minimum(b));
    const v = bound.add(g.square().reshape(axes));
    const next = axes.map((_, axis) => {
      const others = axes.flatMap((_length, i) => (i === axis ? [] : [i]));
      return [`axis${axis}`, others.length === 0 ? v : v.max(others)] as const;
    });
    const scaled = where(v.gt(0), g.reshape(axes).mul(v.maximum(1e-30).rsqrt()), 0);
    return {
      value: p.sub(scaled.reshape(p.shape).mul(this.number("lr", lr))),
      state: Object.fromEntries(next),
    };
  }
}

/** The lengths of the axes; a scalar has one axis of length 1. */
const axesOf = (shape: Shape): Shape => (shape.length === 0 ? [1] : shape);
