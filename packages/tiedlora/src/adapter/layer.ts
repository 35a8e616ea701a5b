/** The connection of adapters to a model: the object in the `adapter` field of a module, and one adapter's layer in it. */
import { concat, key, type Key, ones, product, type Tensor } from "@tiedlora/core";
import * as nn from "@tiedlora/nn";
import { checkForward, checkLowRank } from "./formula.ts";
import { type AdaptableModule, weightView } from "./modules.ts";
import { lowRankForward, scaled, type Call, type LowRank, type Method, type Place } from "../method.ts";
import { type AdapterPlan, sizeOf, type SitePlan } from "./plan.ts";
import type { RowGroups } from "./rows.ts";
import type { Member } from "./sites.ts";
import type { Formulas } from "./tokens.ts";

/** The properties of an adapter that its layers read. */
export interface AdapterState {
  readonly name: string;
  readonly method: Method;
  readonly plan: AdapterPlan;
  /** The seed of all its random numbers. */
  readonly seed: number;
  /** Whether the adapter takes part now. */
  readonly takesPart: boolean;
  /** The factor by which its updates are multiplied. */
  readonly multiplier: number;
  /** The random key of dropout in this step; null: no dropout. */
  readonly dropoutKey: Key | null;
}

/** The adapters of one module, in the order in which they were attached. */
export class AdapterStack implements nn.LinearAdapter, nn.EmbeddingAdapter, nn.NormAdapter {
  readonly layers: readonly AdapterLayer[];
  readonly #state: { readonly rows: RowGroups | null };

  constructor(layers: readonly AdapterLayer[], state: { readonly rows: RowGroups | null }) {
    this.layers = layers;
    this.#state = state;
  }

  /**
   * x: input [..., in] of a linear, or ids [...] of an embedding; y: output of the module without adapters, [..., out]. For a norm, the
   * normalized input [..., out] and the norm's own scale [out].
   */
  apply(x: Tensor, y: Tensor, host: AdaptableModule): Tensor {
    if (host instanceof nn.Norm) return this.#scaled(x, y, host);
    const { rows } = this.#state;
    if (rows === null) {
      return this.layers.reduce((sum, layer) => (layer.owner.takesPart ? layer.apply(x, sum, host) : sum), y);
    }
    const inputs = rows.split(x);
    const outputs = rows.split(y);
    const parts = rows.adapters.map((name, i) => {
      const layer = this.layers.find(({ owner }) => owner.name === name);
      return layer === undefined ? outputs[i]! : layer.apply(inputs[i]!, outputs[i]!, host);
    });
    return rows.join(parts);
  }

  /** A normalized x times the scale that the adapters make of a norm's own. */
  #scaled(x: Tensor, scale: Tensor, host: nn.Norm): Tensor {
    const { rows } = this.#state;
    const acting = this.layers.filter(({ owner }) => owner.takesPart);
    if (rows === null) return x.mul(acting.reduce((own, layer) => layer.scaleOf(own, host), scale));
    const inputs = rows.split(x);
    const parts = rows.adapters.map((name, i) => {
      const layer = this.layers.find(({ owner }) => owner.name === name);
      return inputs[i]!.mul(layer === undefined ? scale : layer.scaleOf(scale, host));
    });
    return rows.join(parts);
  }

  /** Formulas depend on nothing else that changes: see `SharedWork`. */
  state(): nn.GraphState {
    const of = ({ owner, scale }: AdapterLayer): nn.GraphState => [owner.takesPart, owner.dropoutKey, scale];
    return [this.#state.rows, ...this.layers.flatMap(of)];
  }

  /** The keys or values that the adapters which take part put in front of an attention's own, one adapter's after another's. */
  prefix(): Tensor | null {
    return this.#inFront("prefix");
  }

  /** The vectors that the adapters which take part put in front of the rows of an input embedding. */
  prompt(): Tensor | null {
    return this.#inFront("prompt");
  }

  #inFront(what: FrontName): Tensor | null {
    const { rows } = this.#state;
    const having = this.layers.filter(({ formulas }) => formulas[what] !== undefined);
    const mixed = rows && having.find(({ owner }) => rows.adapters.includes(owner.name));
    if (mixed)
      throw new Error(
        `adapter "${mixed.owner.name}" puts ${IN_FRONT[what]} in front of all rows of a batch: it cannot be mixed with others`,
      );
    const found = having.flatMap((layer) =>
      rows === null && layer.owner.takesPart ? (layer.inFront(what) ?? []) : [],
    );
    return found.length === 0 ? null : found.length === 1 ? found[0]! : concat(found);
  }
}

/** What methods put in front of a sequence, for messages. */
const IN_FRONT = { prefix: "keys and values", prompt: "vectors" } as const;
type FrontName = keyof typeof IN_FRONT;

type Factors = Record<string, Tensor>;

/** One adapter's layer at one module. The layers of linears that are adapted as one target share one `SharedWork`. */
export class AdapterLayer {
  readonly owner: AdapterState;
  readonly member: Member;
  readonly plan: SitePlan;
  /** The method's own, but for the rows of an embedding that it trains beside its target. */
  readonly formulas: Formulas;
  /** The whole factors of the site, by name. */
  readonly #factors: ReadonlyMap<string, nn.Parameter>;
  readonly #work: SharedWork;
  #place: Place | null = null;

  constructor(
    owner: AdapterState,
    member: Member,
    plan: SitePlan,
    factors: ReadonlyMap<string, nn.Parameter>,
    work: SharedWork,
    formulas: Formulas = owner.method,
  ) {
    this.owner = owner;
    this.formulas = formulas;
    this.member = member;
    this.plan = plan;
    this.#factors = factors;
    this.#work = work;
  }

  /** Which site of the model this is, for formulas. */
  get place(): Place {
    const { plan, owner } = this;
    this.#place ??= {
      site: plan.site,
      dims: plan.dims,
      layer: plan.layer,
      type: plan.type,
      sizes: factorSizes(owner.plan),
      key: key(owner.seed).fold(plan.site.path),
    };
    return this.#place;
  }

  get scale(): number {
    return this.plan.scale * this.owner.multiplier;
  }

  /** Returns the module's output with this adapter: see `AdapterStack.apply`. */
  apply(x: Tensor, y: Tensor, host: AdaptableModule): Tensor {
    if (host instanceof nn.Linear) return this.linear(x, y, host, host.bias);
    const low = this.lowRank();
    // for a one-hot x, A x is a column of A
    if (low !== null) return y.add(scaled(low.A.transpose().take(x).matmul(low.B.transpose()), this.scale));
    return this.linear(x.oneHot(this.member.in), y, host, null);
  }

  /** The scale [out] that the adapter makes of a norm's: what a linear map of the number 1 gives. */
  scaleOf(own: Tensor, host: nn.Norm): Tensor {
    const low = this.lowRank();
    if (low !== null) return own.add(scaled(low.B, this.scale).matmul(low.A).squeeze(1));
    return this.linear(ones([1, 1]), own.cast("f32").unsqueeze(0), host, null).squeeze(0);
  }

  /** Returns the output for an input [..., in]; formulas are given `bias` in place of the module's own bias. */
  linear(x: Tensor, y: Tensor, host: AdaptableModule, bias: Tensor | null): Tensor {
    const { owner, plan, member, formulas } = this;
    const { dropoutKey, method } = owner;
    const shared = this.#work.at(x, [...this.#factors.values()], [dropoutKey, this.scale]);
    const input =
      dropoutKey === null ? x : shared(() => nn.dropout(x, method.dropout, dropoutKey.fold(plan.site.path)));
    const { place } = this;
    const call: Call = { x: input, y, scale: this.scale, weight: weightView(host), bias, shared, place };
    const origin = { method: method.name, path: member.path };
    if (formulas.forward)
      return checkForward(formulas.forward(this.factors(member.offset, member.out), call), y, origin);
    const { A, B } = shared(() => checkLowRank(formulas.lowRank!(this.factors(), place), plan.site, origin));
    return lowRankForward({ A, B: part(B, 0, member.offset, member.out) }, call);
  }

  /**
   * The module's update in the form of LoRA, ΔW = scale · B A, with the module's own rows of B; null if the method has no such
   * form. `change` is applied to the factors first.
   */
  lowRank(change: (factors: Factors) => Factors = (factors) => factors): LowRank | null {
    const { formulas } = this;
    if (!formulas.lowRank) return null;
    const origin = { method: formulas.name, path: this.member.path };
    const { A, B } = checkLowRank(
      formulas.lowRank(change(this.factors()), this.place),
      this.plan.site,
      origin,
    );
    return { A, B: part(B, 0, this.member.offset, this.member.out) };
  }

  /** What the method puts in front of the keys or values that the module makes, or of its rows; null if it puts nothing there. */
  inFront(what: FrontName): Tensor | null {
    return this.formulas[what]!(this.factors(this.member.offset, this.member.out), this.place);
  }

  /** The parts of the factors that apply to the rows `offset` to `offset + out` of the site; default: to the whole site. */
  factors(offset: number = 0, out: number = this.plan.site.out): Factors {
    const views: Factors = {};
    for (const [name, parameter] of this.#factors) {
      let view: Tensor = parameter;
      this.plan.factors.get(name)!.spec.shape.forEach((dim, axis) => {
        if (dim === "out") view = part(view, axis, offset, out);
        else view = part(view, axis, 0, sizeOf(dim, this.plan.dims));
      });
      views[name] = view;
    }
    return views;
  }

  /** The whole parameter of a factor; undefined if the method has no factor of this name. */
  parameter(factor: string): nn.Parameter | undefined {
    return this.#factors.get(factor);
  }
}

/** The number of elements of each factor of an adapter. */
const SIZES = new WeakMap<AdapterPlan, Readonly<Record<string, number>>>();
function factorSizes(plan: AdapterPlan): Readonly<Record<string, number>> {
  const known = SIZES.get(plan);
  if (known !== undefined) return known;
  const sizes: Record<string, number> = {};
  for (const { factor, shape } of plan.factors) sizes[factor] = (sizes[factor] ?? 0) + product(shape);
  SIZES.set(plan, sizes);
  return sizes;
}

function part(t: Tensor, axis: number, start: number, length: number): Tensor {
  return start === 0 && t.shape[axis] === length ? t : t.narrow(axis, start, length);
}

type Work = Tensor | LowRank;

/**
 * Results that the linears of one site compute once: q, k and v read the same tensor x, and A x is the same for all three. They are
 * kept for as long as x is in use and no other tensor is read, and computed anew once a factor, the dropout key or the scale has changed.
 */
export class SharedWork {
  /** Of the last input alone: engines keep the values of a WeakMap until they collect the whole heap, and here those are graphs. */
  #byInput = new WeakMap<Tensor, { state: readonly unknown[]; results: Work[] }>();

  /**
   * Returns `shared` for one call of a formula. The next call with the same input, factors and settings reuses its results, in the
   * order in which the formula asks for them.
   */
  at(x: Tensor, factors: readonly Tensor[], settings: readonly (Key | number | null)[]): Call["shared"] {
    const state = [...factors.map((factor) => factor.node), ...settings];
    let entry = this.#byInput.get(x);
    if (entry === undefined || entry.state.some((one, i) => one !== state[i])) {
      entry = { state, results: [] };
      this.#byInput = new WeakMap([[x, entry]]);
    }
    const { results } = entry;
    let next = 0;
    return <T extends Work>(compute: () => T): T => {
      const at = next++;
      const result = results[at] ?? compute();
      results[at] = result;
      return result as T; // one formula asks for the same results in the same order each time
    };
  }
}
