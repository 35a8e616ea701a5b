/** Convolution and pooling as windows and a matmul: for lessons and small images, not tuned. */
import { matmul, pad, permute, reshape, swapLast } from "../build.ts";
import type { Node } from "../node.ts";
import { show } from "../shape.ts";
import { windows } from "./indexing.ts";

/** [n, c, h, w] -> [n, c, oh, kh, ow, kw]. */
function patches(x: Node, [kh, kw]: readonly [number, number], stride: number): Node {
  return windows(windows(x, 2, kh, stride), 4, kw, stride);
}

function check(what: string, x: Node, size: readonly [number, number], stride: number): void {
  const fits = x.shape.length === 4 && x.shape[2]! >= size[0] && x.shape[3]! >= size[1];
  if (!fits || !Number.isInteger(stride) || stride < 1) {
    throw new RangeError(
      `${what}: window [${size.join(", ")}] with stride ${stride} on ${show(x.shape)}; need [n, c, h, w] no smaller than it`,
    );
  }
}

/** x [n, c, h, w], kernel [out, c, kh, kw] -> [n, out, oh, ow]. Cross-correlation, as everywhere in deep learning. */
export function conv2d(x: Node, kernel: Node, stride: number, padding: number): Node {
  if (kernel.shape.length !== 4 || kernel.shape[1] !== x.shape[1]) {
    throw new RangeError(
      `conv2d: kernel ${show(kernel.shape)} for ${show(x.shape)}; need [out, c, kh, kw] with the same c`,
    );
  }
  const padded = pad(x, [
    [0, 0],
    [0, 0],
    [padding, padding],
    [padding, padding],
  ]);
  const size = [kernel.shape[2]!, kernel.shape[3]!] as const;
  check("conv2d", padded, size, stride);
  const p = patches(padded, size, stride);
  const [n, c, oh, kh, ow, kw] = p.shape as [number, number, number, number, number, number];
  const columns = reshape(permute(p, [0, 2, 4, 1, 3, 5]), [n * oh * ow, c * kh * kw]);
  const out = matmul(columns, swapLast(reshape(kernel, [kernel.shape[0]!, c * kh * kw])));
  return permute(reshape(out, [n, oh, ow, kernel.shape[0]!]), [0, 3, 1, 2]);
}

/** Windows of a [n, c, h, w] image gathered on a last axis: [n, c, oh, ow, size * size], to be reduced by a pooling. */
export function poolWindows(x: Node, size: number, stride: number): Node {
  check("pool2d", x, [size, size], stride);
  const p = patches(x, [size, size], stride);
  const [n, c, oh, , ow] = p.shape as [number, number, number, number, number, number];
  return reshape(permute(p, [0, 1, 2, 4, 3, 5]), [n, c, oh, ow, size * size]);
}
