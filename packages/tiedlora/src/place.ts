/** Where adapters meet a model: what sits in the `adapter` field of a linear, and one adapter's part in it. */
import { type Key, nn, type Node, type Tensor } from "@tiedlora/core";
import { lowRankForward, type Call, type LowRank, type Method } from "./method.ts";
import type { SitePlan } from "./plan.ts";
import type { Member } from "./sites.ts";

/** What places ask of the adapter they belong to. */
export interface Owner {
  readonly method: Method;
  /** Whether the adapter takes part. */
  readonly active: boolean;
  /** Where dropout takes its numbers from in this step; null: no dropout. */
  readonly dropoutKey: Key | null;
}

/** The adapters of one linear, in the order in which they were attached. */
export class AdapterStack implements nn.LinearAdapter {
  readonly places: readonly Place[];

  constructor(places: readonly Place[]) {
    this.places = places;
  }

  apply(x: Tensor, y: Tensor, linear: nn.Linear): Tensor {
    return this.places.reduce((sum, place) => (place.owner.active ? place.apply(x, sum, linear) : sum), y);
  }
}

/** The frozen weight as [out, in], whichever way it is stored. */
export function weightView(linear: nn.Linear): Tensor {
  return linear.layout === "outIn" ? linear.weight : linear.weight.transpose();
}

/** One adapter at one linear. Linears that are adapted as one target have places with a `SharedWork` in common. */
export class Place {
  readonly owner: Owner;
  readonly member: Member;
  readonly plan: SitePlan;
  /** The whole factors of the site, by name. */
  readonly #factors: ReadonlyMap<string, nn.Parameter>;
  readonly #work: SharedWork;

  constructor(
    owner: Owner,
    member: Member,
    plan: SitePlan,
    factors: ReadonlyMap<string, nn.Parameter>,
    work: SharedWork,
  ) {
    this.owner = owner;
    this.member = member;
    this.plan = plan;
    this.#factors = factors;
    this.#work = work;
  }

  /** What the module answers with this adapter, given its input x [..., in] and what it answers without, y [..., out]. */
  apply(x: Tensor, y: Tensor, linear: nn.Linear): Tensor {
    const { owner, plan, member } = this;
    const { dropoutKey, method } = owner;
    const shared = this.#work.at(x, [...this.#factors.values()], dropoutKey);
    const input =
      dropoutKey === null ? x : shared(() => nn.dropout(x, method.dropout, dropoutKey.fold(plan.site.path)));
    const call: Call = {
      x: input,
      y,
      scale: plan.scale,
      weight: weightView(linear),
      bias: linear.bias,
      shared,
    };
    if (method.forward) return method.forward(this.factors(member.offset, member.out), call);
    const { A, B } = shared(() => method.lowRank!(this.factors()));
    return lowRankForward({ A, B: part(B, 0, member.offset, member.out) }, call);
  }

  /** The factors as the rows `offset` to `offset + out` of the site see them; default: the whole site. */
  factors(offset: number = 0, out: number = this.plan.site.out): Record<string, Tensor> {
    const views: Record<string, Tensor> = {};
    for (const [name, parameter] of this.#factors) {
      let view: Tensor = parameter;
      this.plan.factors.get(name)!.spec.shape.forEach((dim, axis) => {
        if (dim === "out") view = part(view, axis, offset, out);
        if (dim === "in") view = part(view, axis, 0, this.plan.site.in);
      });
      views[name] = view;
    }
    return views;
  }
}

function part(t: Tensor, axis: number, start: number, length: number): Tensor {
  return start === 0 && t.shape[axis] === length ? t : t.narrow(axis, start, length);
}

type Work = Tensor | LowRank;

/**
 * Work that the linears of one site do once: q, k and v read the same tensor x, and A x is the same for all three. It is
 * kept for as long as x is in use, and dropped when a factor has been updated since.
 */
export class SharedWork {
  readonly #byInput = new WeakMap<Tensor, { state: readonly (Node | Key | null)[]; results: Work[] }>();

  /** `shared` of one call: its results are taken over by the next call with the same input and factors, in order. */
  at(x: Tensor, factors: readonly Tensor[], random: Key | null): Call["shared"] {
    const state = [...factors.map((factor) => factor.node), random];
    let entry = this.#byInput.get(x);
    if (entry === undefined || entry.state.some((one, i) => one !== state[i])) {
      entry = { state, results: [] };
      this.#byInput.set(x, entry);
    }
    const { results } = entry;
    let next = 0;
    return <T extends Work>(compute: () => T): T => {
      const at = next++;
      const result = results[at] ?? compute();
      results[at] = result;
      return result as T; // the same formula asks for the same things in the same order
    };
  }
}
