/** Writing a part of a tensor, as a value; caches of keys and values grow by it. */
import { Tensor } from "@tiedlora/core";
import { build, checkTensors, checkWhole, deviceOf, show } from "@tiedlora/core/extend";

/**
 * `x` with `values` in place of `x.narrow(axis, start, n)`, where n is the length of `values` along `axis` (torch.slice_scatter). As the
 * new value of the parameter `x` in `assign`, in a program that reads `x` nowhere else, it is written in place: only `values` is stored.
 * Any start is served by one program. Throws RangeError if `values` does not fit there, TypeError if it is of another type.
 */
export function sliceScatter(x: Tensor, axis: number, start: number, values: Tensor): Tensor {
  checkTensors("sliceScatter", [x, values]);
  const length = x.shape[checkWhole("sliceScatter: axis", axis, 0, x.rank - 1)]!;
  const n = values.shape[axis] ?? NaN;
  const isLike = values.rank === x.rank && values.shape.every((d, i) => i === axis || d === x.shape[i]);
  if (!isLike || n > length)
    throw new RangeError(
      `sliceScatter: values ${show(values.shape)} for ${show(x.shape)}; need ${show(x.shape.with(axis, n))} with at most ${length} along axis ${axis}`,
    );
  if (values.dtype !== x.dtype)
    throw new TypeError(`sliceScatter: values ${values.dtype} for ${x.dtype}; use .cast("${x.dtype}")`);
  checkWhole("sliceScatter: start", start, 0, length - n);
  if (values.size === 0) return x;
  return new Tensor(build.place(x.node, values.node, axis, start), deviceOf([x, values]));
}
