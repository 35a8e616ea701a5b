/** Positions of a batch, and which tokens see which: computed once for all layers. */
import { type Device, iota, type Tensor, where } from "@tiedlora/core";
import type { KvCache } from "./cache.ts";
import type { DecoderConfig } from "./config.ts";
import type { IdsShape } from "./inputs.ts";
import { ropeTables } from "./rope.ts";

export interface SequenceOptions {
  /** [batch, length] of 1 (a token) and 0 (padding, which nobody sees). Without one, all are tokens. */
  readonly attentionMask?: readonly ArrayLike<number>[];
  /** [batch, length]. Default: 0, 1, 2, … over the tokens that are not padding. */
  readonly positions?: readonly ArrayLike<number>[];
}

export interface Visibility {
  readonly causal: boolean;
  /** Added to the scores; broadcasts to [batch, heads, queries, keys]. */
  readonly bias: Tensor | null;
}

export interface Sequence {
  /** i32 [length], or [batch, length] where rows differ. */
  readonly positions: Tensor;
  /** Rotary tables [length, dim/2] or [batch, 1, length, dim/2]; null where positions are learned. */
  readonly rotation: { readonly cos: Tensor; readonly sin: Tensor } | null;
  /** For layers whose queries see `window` positions up to their own; null: all. */
  visibility(window: number | null): Visibility;
}

/** Hides a key: exp of it is 0, and it stays finite when added twice. */
const HIDDEN = -1e30;

export function prepare(
  config: DecoderConfig,
  device: Device,
  [batch, length]: IdsShape,
  options: SequenceOptions,
  cache?: KvCache,
): Sequence {
  if (cache && (options.attentionMask || options.positions)) {
    throw new TypeError(
      "forward: a cache keeps its own positions and padding; give no attentionMask or positions with it",
    );
  }
  checkRows(options.attentionMask, "attentionMask", batch, length);
  checkRows(options.positions, "positions", batch, length);
  const start = cache?.length ?? 0;
  const mask = options.attentionMask ?? (cache && start === 0 ? paddingMask(cache.pads, length) : undefined);
  const rows = (options.positions ?? positionRows(start, length, mask, cache?.pads)).map((row) =>
    Array.from(row),
  );
  const decoding = cache !== undefined && start > 0;
  return {
    ...positionTensors(config, device, rows, length),
    visibility: memoize((window) =>
      decoding ? visibleSlots(device, cache, window) : visibleTokens(device, mask, length, window),
    ),
  };
}

function checkRows(
  rows: readonly ArrayLike<number>[] | undefined,
  what: string,
  batch: number,
  length: number,
): void {
  if (!rows || (rows.length === batch && rows.every((row) => row.length === length))) return;
  throw new RangeError(
    `${what}: [${rows.length}, ${rows[0]?.length ?? 0}] was given; need [${batch}, ${length}], as the ids`,
  );
}

/** Undefined where nothing is padded. */
function paddingMask(pads: readonly number[], length: number): number[][] | undefined {
  if (pads.every((pad) => pad === 0)) return undefined;
  return pads.map((pad) => Array.from({ length }, (_, slot) => (slot < pad ? 0 : 1)));
}

/** One row if all are equal. Padding gets position 0, as in transformers' generate; nobody looks at it. */
function positionRows(
  start: number,
  length: number,
  mask: readonly ArrayLike<number>[] | undefined,
  pads: readonly number[] | undefined,
): number[][] {
  if (mask) {
    return mask.map((row) => {
      let seen = 0;
      return Array.from(row, (token) => Math.max(0, token ? seen++ : seen - 1));
    });
  }
  const from = (pad: number): number[] => Array.from({ length }, (_, t) => Math.max(0, start + t - pad));
  return pads?.some((pad) => pad > 0) ? pads.map(from) : [from(0)];
}

function positionTensors(
  config: DecoderConfig,
  device: Device,
  rows: readonly number[][],
  length: number,
): Pick<Sequence, "positions" | "rotation"> {
  const flat = rows.flat();
  const end = Math.max(...flat) + 1;
  const wrong = flat.find((p) => !Number.isInteger(p) || p < 0);
  if (wrong !== undefined) throw new RangeError(`positions: ${wrong}; need whole numbers from 0 on`);
  if (!config.rope && end > config.maxPositions) {
    throw new RangeError(
      `a sequence of ${end} positions; the model has learned ${config.maxPositions}: shorten it`,
    );
  }
  const shared = rows.length === 1;
  const positions = device.tensor(Int32Array.from(flat), {
    shape: shared ? [length] : [rows.length, length],
    dtype: "i32",
  });
  if (!config.rope) return { positions, rotation: null };
  const tables = ropeTables(config.rope, flat, end);
  const half = config.rope.dim / 2;
  const shape = shared ? [length, half] : [rows.length, 1, length, half];
  return {
    positions,
    rotation: { cos: device.tensor(tables.cos, { shape }), sin: device.tensor(tables.sin, { shape }) },
  };
}

function visibleTokens(
  device: Device,
  mask: readonly ArrayLike<number>[] | undefined,
  length: number,
  window: number | null,
): Visibility {
  const biases: Tensor[] = [];
  if (mask) {
    const hidden = Float32Array.from(mask.flatMap((row) => Array.from(row, (token) => (token ? 0 : HIDDEN))));
    biases.push(device.tensor(hidden, { shape: [mask.length, 1, 1, length] }));
  }
  if (window !== null && length > window) {
    const shape = [1, 1, length, length];
    const distance = iota(shape, 2).sub(iota(shape, 3));
    biases.push(where(distance.lt(window), 0, HIDDEN));
  }
  return { causal: true, bias: biases.length === 0 ? null : biases.reduce((a, b) => a.add(b)) };
}

/** One new token looks at the slots of the cache: not at padding, nor at slots that are still to be filled. */
function visibleSlots(device: Device, cache: KvCache, window: number | null): Visibility {
  const slot = iota([1, 1, 1, cache.capacity], 3);
  let visible = slot.le(cache.length);
  if (window !== null) visible = visible.and(slot.gt(cache.length - window));
  if (cache.pads.some((pad) => pad > 0)) {
    const pads = device.tensor(Int32Array.from(cache.pads), {
      shape: [cache.pads.length, 1, 1, 1],
      dtype: "i32",
    });
    visible = visible.and(slot.ge(pads));
  }
  return { causal: false, bias: where(visible, 0, HIDDEN) };
}

function memoize(compute: (window: number | null) => Visibility): (window: number | null) => Visibility {
  const known = new Map<number | null, Visibility>();
  return (window) => {
    const found = known.get(window) ?? compute(window);
    known.set(window, found);
    return found;
  };
}
