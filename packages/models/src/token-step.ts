/**
 * The next token of each row of a cache. From token to token, the graph of this step differs only in numbers: the ids, the positions, the
 * slot of the cache. It is therefore built for two tokens and compared; from the third token on, the program is submitted again with the
 * numbers of that token. The graph is built again once the model's parameters or adapters are others, and once for a cache that has grown.
 */
import { decode, type Node, type Storage, type TypedArray } from "@tiedlora/core";
import { submit, trace, type Trace, type Update } from "@tiedlora/core/extend";
import type { CacheNumbers, KvCache } from "./cache.ts";
import type { Decoder } from "./decoder.ts";
import { graphState } from "./graph-state.ts";
import { idsTensor } from "./inputs.ts";

/** A step whose graph has been built, and what it was built from. */
interface Built {
  readonly state: readonly unknown[];
  readonly logits: Node;
  readonly updates: readonly Update[];
  /** `starts` are those of the last submission. */
  readonly traced: Trace & { readonly starts: number[] };
  /** The leaves of the numbers that differ between steps, each with its place among the numbers of a step. */
  readonly places: ReadonlyMap<Node, number>;
  readonly numbers: readonly CacheNumbers[];
  /** The slot of the cache that the step has filled. */
  readonly slot: number;
}

/** Logits that are being computed. */
export interface Result {
  readonly storage: Storage;
  readonly node: Node;
}

type Rows = readonly (readonly number[])[];

/** The steps of one model with one cache. */
export class TokenStep {
  readonly model: Decoder;
  readonly #cache: KvCache;
  /** The last step that was built. */
  #built: Built | null = null;
  /** The state of the model in which two steps in succession differed in nothing but their numbers: a further one is built only for a new memory. */
  #steady: readonly unknown[] | null = null;
  /** Whether two steps differed in more, for reasons that the state of the model does not say: all further ones are built. */
  #isUnsteady = false;
  /** The device memory of the numbers of a known step, by their place. */
  #memory: (Storage | undefined)[] = [];

  constructor(model: Decoder, cache: KvCache) {
    this.model = model;
    this.#cache = cache;
  }

  /** Submits one more token of each row, [batch, 1], for which the cache must have room; gives the logits after them, [batch, 1, vocab]. */
  next(tokens: Rows): Result {
    const state = this.#isUnsteady ? null : graphState(this.model);
    const before = this.#built;
    const isLike = state !== null && before !== null && sameEntries(before.state, state);
    const isSteady = state !== null && this.#steady !== null && sameEntries(this.#steady, state);
    if (isSteady && isLike && this.#isValid(before, tokens)) return this.#repeat(before, tokens);
    this.free();
    const logits = this.#build(tokens, state);
    if (isLike && !isSteady) {
      if (differOnlyInNumbers(before, this.#built!)) this.#steady = state;
      else this.#isUnsteady = true;
    }
    return logits;
  }

  /** Whether the program of a step is still there, and the ids are such as it reads. */
  #isValid({ traced }: Built, tokens: Rows): boolean {
    const { config, device } = this.model;
    const isId = ([id]: readonly number[]): boolean => Number.isInteger(id) && id! >= 0 && id! < config.vocab;
    return tokens.every(isId) && device.plans.find(traced) !== undefined;
  }

  #build(tokens: Rows, state: readonly unknown[] | null): Result {
    const { model } = this;
    const cache = this.#cache;
    cache.takeNumbers(); // those of passes that were built and not computed
    const { slot } = cache;
    const ids = idsTensor(model.device, tokens, model.config.vocab);
    const logits = model.logits(model.hidden(ids, { cache })).node;
    const updates = cache.takeUpdates().map(([{ storage }, value]) => ({ storage, value: value.node }));
    const numbers = cache.takeNumbers();
    const found = trace([logits], updates);
    const copied = { ...found, structure: found.structure.slice(), sizes: found.sizes.slice() };
    const results = submit(model.device, [logits], updates, copied);
    const { structure, sizes } = model.device.plans.find(copied) ?? copied; // the plan's own are found faster
    const traced = { ...copied, structure, sizes, starts: [...found.starts] };
    const leaves = [ids, ...numbers.flatMap(({ tensors }) => tensors)].map(({ node }) => node);
    const places = new Map(leaves.map((node, place) => [node, place]));
    this.#built = state && { state, logits, updates, traced, places, numbers, slot };
    cache.advance();
    return { storage: results[0]!, node: logits };
  }

  #repeat({ logits, updates, traced, places, numbers }: Built, tokens: Rows): Result {
    const { device } = this.model;
    const values = [Int32Array.from(tokens, ([id]) => id!), ...numbers.flatMap(({ compute }) => compute())];
    for (const node of traced.data) {
      const place = places.get(node);
      if (place === undefined) continue;
      const own = values[place]!;
      const storage = (this.#memory[place] ??= device.allocate(own.byteLength, "the numbers of a token"));
      storage.buffer.write(own);
      device.uploads.set(node, storage);
    }
    for (const i of traced.free) traced.starts[i] = this.#cache.slot;
    const results = submit(device, [logits], updates, traced);
    this.#cache.appendedAgain();
    return { storage: results[0]!, node: logits };
  }

  /** Frees its memory, and forgets the step: the cache's memory is freed. */
  free(): void {
    for (const storage of this.#memory) storage?.buffer.free();
    this.#memory = [];
    this.#built = null;
  }
}

const sameEntries = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  a.length === b.length && a.every((one, i) => Object.is(one, b[i]));

/** Whether the program of one step computes the other, given the numbers of that. */
function differOnlyInNumbers(a: Built, b: Built): boolean {
  const [one, other] = [a.traced, b.traced];
  const isLike = (start: number, i: number): boolean =>
    one.free.has(i) ? start === a.slot && other.starts[i] === b.slot : start === other.starts[i];
  const isSame = (node: Node<"data">, i: number): boolean => {
    const [place, like] = [a.places.get(node), other.data[i]!];
    if (place !== undefined) return place === b.places.get(like);
    return !b.places.has(like) && sameEntries([...node.attrs.values], [...like.attrs.values]);
  };
  return (
    sameEntries([...one.structure], [...other.structure]) &&
    sameEntries([...one.sizes], [...other.sizes]) &&
    sameEntries(one.storages, other.storages) &&
    sameEntries(
      one.scalars.map(({ attrs }) => attrs.value),
      other.scalars.map(({ attrs }) => attrs.value),
    ) && // prettier-ignore
    one.starts.every(isLike) &&
    one.data.every(isSame)
  );
}

/** The values of a result, whose memory is then freed. */
export async function readResult({ storage, node }: Result): Promise<TypedArray> {
  const size = node.shape.reduce((a, b) => a * b, 1);
  try {
    return decode(await storage.buffer.read(), node.dtype, size);
  } finally {
    storage.buffer.free();
  }
}
