/** Convolution and pooling by windows and a matmul: meant for teaching and small images, not tuned for speed. */
import { stack, type Tensor } from "@tiedlora/core";
import { checkOptions, checkTensors, checkWhole, show } from "@tiedlora/core/extend";

/** Windows of `size` elements that start every `stride` elements of one axis; a new axis after it holds a window's elements. */
function windows(x: Tensor, axis: number, size: number, stride: number): Tensor {
  const count = Math.floor((x.shape[axis]! - size) / stride) + 1;
  const before = x.shape.slice(0, axis).map(() => null);
  const pieces = Array.from({ length: size }, (_, offset) =>
    x.slice(...before, [offset, offset + (count - 1) * stride + 1, stride]),
  );
  return stack(pieces, axis + 1);
}

/** [n, c, h, w] -> [n, c, oh, kh, ow, kw]. */
function patches(x: Tensor, [kh, kw]: readonly [number, number], stride: number): Tensor {
  return windows(windows(x, 2, kh, stride), 4, kw, stride);
}

function check(what: string, x: Tensor, size: readonly [number, number], stride: number): void {
  checkTensors(what, [x]);
  for (const n of [...size, stride]) checkWhole(`${what}: sizes and stride`, n, 1);
  const fits = x.rank === 4 && x.shape[2]! >= size[0] && x.shape[3]! >= size[1];
  if (!fits) {
    throw new RangeError(
      `${what}: window [${size.join(", ")}] with stride ${stride} on ${show(x.shape)}; need [n, c, h, w] no smaller than it`,
    );
  }
}

/**
 * The cross-correlation of `x` [n, c, h, w] with `kernel` [out, c, kh, kw], with h and w padded by `padding` zeros at each end
 * (default 0) and windows that start every `stride` elements (default 1): [n, out, oh, ow]. Throws RangeError for other shapes.
 */
export function conv2d(
  x: Tensor,
  kernel: Tensor,
  options: { readonly stride?: number; readonly padding?: number } = {},
): Tensor {
  const { stride = 1, padding = 0 } = checkOptions("conv2d", options, "{ stride: 2 }", ["stride", "padding"]);
  checkWhole("conv2d: padding", padding);
  checkTensors("conv2d", [x, kernel]);
  if (kernel.rank !== 4 || kernel.shape[1] !== x.shape[1]) {
    throw new RangeError(
      `conv2d: kernel ${show(kernel.shape)} for ${show(x.shape)}; need [out, c, kh, kw] with the same c`,
    );
  }
  const [out, , height, width] = kernel.shape as [number, number, number, number];
  const both = [padding, padding] as const;
  const padded = x.rank === 4 ? x.pad([[0, 0], [0, 0], both, both]) : x; // prettier-ignore
  check("conv2d", padded, [height, width], stride);
  const p = patches(padded, [height, width], stride);
  const [n, c, oh, kh, ow, kw] = p.shape as [number, number, number, number, number, number];
  const columns = p.permute([0, 2, 4, 1, 3, 5]).reshape([n * oh * ow, c * kh * kw]);
  const product = columns.matmul(kernel.reshape([out, c * kh * kw]).transpose());
  return product.reshape([n, oh, ow, out]).permute([0, 3, 1, 2]);
}

/** The windows of images [n, c, h, w], each flattened into the last axis: [n, c, oh, ow, size * size]. */
function poolWindows(what: string, x: Tensor, size: number, stride: number): Tensor {
  check(what, x, [size, size], stride);
  const p = patches(x, [size, size], stride);
  const [n, c, oh, , ow] = p.shape as [number, number, number, number, number, number];
  return p.permute([0, 1, 2, 4, 3, 5]).reshape([n, c, oh, ow, size * size]);
}

/** The maximum of each `size` × `size` window: `x` is [n, c, h, w], and the result is [n, c, oh, ow]. */
export const maxPool2d = (x: Tensor, size: number, stride: number = size): Tensor =>
  poolWindows("maxPool2d", x, size, stride).max(-1);

/** The mean of each `size` × `size` window: `x` is [n, c, h, w], and the result is [n, c, oh, ow]. */
export const avgPool2d = (x: Tensor, size: number, stride: number = size): Tensor =>
  poolWindows("avgPool2d", x, size, stride).mean(-1);
