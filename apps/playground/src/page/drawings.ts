/**
 * Chooses what is drawn: a method that is being trained or has been, an adapter from files, or a card with its current
 * settings. A drawing shows the values of the method that it names: a card that was changed after its training is another one.
 */
import { planAdapter } from "tiedlora";
import { labelOf, methodOf, trainsSomething } from "../method.ts";
import { type DrawnPlan, drawnPlan } from "../plan.ts";
import type { BaseInfo, RunChoice } from "../protocol.ts";
import { byId, el } from "./dom.ts";
import { Network } from "./network.ts";

interface Drawing {
  readonly key: string;
  readonly label: string;
  readonly colour: number | "loaded";
  /** The run whose values it shows; null if it has none yet. */
  readonly run: number | null;
  plan(base: BaseInfo): DrawnPlan;
}

export interface DrawingsEvents {
  /** A part with values was chosen; `run` is null if it belongs to the base model. */
  chosen(run: number | null, path: string, name: string): void;
  /** A part was chosen that exists only after training starts. */
  untrained(label: string): void;
}

export class Drawings {
  #base: BaseInfo | null = null;
  #cards: readonly RunChoice[] = [];
  #runs: readonly { readonly choice: RunChoice; readonly label: string }[] = [];
  readonly #loaded = new Map<number, { readonly label: string; readonly plan: DrawnPlan }>();
  /** Runs whose factors exist. */
  readonly #alive = new Set<number>();
  #network: Network | null = null;
  readonly #list = byId("network-run", HTMLSelectElement);
  readonly #holder = byId("network");
  readonly #events: DrawingsEvents;
  #width = 0;

  constructor(events: DrawingsEvents) {
    this.#events = events;
    this.#list.addEventListener("change", () => this.#draw());
    new ResizeObserver(() => {
      if (this.#holder.clientWidth !== this.#width) this.#draw();
    }).observe(this.#holder);
  }

  /** Sets another base model, on which nothing has been trained. */
  setBase(base: BaseInfo): void {
    this.#base = base;
    this.#runs = [];
    this.#loaded.clear();
    this.#alive.clear();
    this.#show();
  }

  /** Sets the current choices of the cards; `changed` is the number of the card that was changed and is drawn now, or null. */
  setCards(cards: readonly RunChoice[], changed: number | null): void {
    this.#cards = cards;
    this.#show(changed === null ? undefined : `card ${changed}`);
  }

  /** Sets the runs of the training that starts now. */
  start(runs: readonly RunChoice[], labels: ReadonlyMap<number, string>): void {
    const drawn = /^(?:card|run) ([0-3])$/.exec(this.#list.value)?.[1];
    this.#runs = runs.map((choice) => ({ choice, label: labels.get(choice.id)! }));
    for (const { id } of runs) this.#alive.delete(id);
    this.#show(drawn === undefined ? undefined : `run ${drawn}`);
  }

  /** The factors of the trained runs exist now. */
  begun(): void {
    for (const { choice } of this.#runs) this.#alive.add(choice.id);
  }

  addLoaded(id: number, label: string, plan: DrawnPlan): void {
    this.#loaded.set(id, { label, plan });
    this.#alive.add(id);
    this.#show();
  }

  removeLoaded(id: number): void {
    this.#loaded.delete(id);
    this.#show();
  }

  showGradients(run: number, norms: Readonly<Record<string, number>>): void {
    if (this.#drawing()?.run === run) this.#network?.showGradients(norms);
  }

  #all(): Drawing[] {
    const planOf =
      ({ method }: RunChoice) =>
      (base: BaseInfo): DrawnPlan =>
        drawnPlan(planAdapter(base.linears, methodOf(method)));
    const same = (a: RunChoice, b: RunChoice): boolean =>
      a.id === b.id && JSON.stringify(a.method) === JSON.stringify(b.method);
    const trained = this.#runs.map(({ choice, label }): Drawing => ({
      key: `run ${choice.id}`,
      label,
      colour: choice.id,
      run: choice.id,
      plan: planOf(choice),
    }));
    const loaded = [...this.#loaded].map(([id, { label, plan }]): Drawing => ({
      key: `run ${id}`,
      label,
      colour: "loaded",
      run: id,
      plan: () => plan,
    }));
    const open = this.#cards.filter(
      (card) => trainsSomething(card.method) && !this.#runs.some(({ choice }) => same(choice, card)),
    );
    const note = this.#runs.length > 0 ? ", as set now, not trained" : "";
    const cards = open.map((card): Drawing => ({
      key: `card ${card.id}`,
      label: `${labelOf(card.method)}${note}`,
      colour: card.id,
      run: null,
      plan: planOf(card),
    }));
    return [...trained, ...cards, ...loaded];
  }

  #drawing(): Drawing | undefined {
    return this.#all().find(({ key }) => key === this.#list.value);
  }

  /** Lists all drawings, and draws `wanted` if it is in the list, or else the same as before, or else the first. */
  #show(wanted?: string): void {
    const all = this.#all();
    const keys = [wanted, this.#list.value].filter((key) => all.some((one) => one.key === key));
    this.#list.replaceChildren(...all.map(({ key, label }) => el("option", { value: key }, label)));
    this.#list.value = keys[0] ?? all[0]?.key ?? "";
    this.#draw();
  }

  #draw(): void {
    const drawing = this.#drawing();
    this.#network = null;
    this.#width = this.#holder.clientWidth;
    if (!this.#base || !drawing) return this.#holder.replaceChildren();
    const { label, colour, run } = drawing;
    try {
      this.#network = new Network(
        this.#holder,
        this.#base,
        { label, colour, plan: drawing.plan(this.#base) },
        {
          chosen: (path, ofBase, name) => {
            if (ofBase) this.#events.chosen(null, path, name);
            else if (run === null || !this.#alive.has(run)) this.#events.untrained(label);
            else this.#events.chosen(run, path, `${label}: ${name}`);
          },
        },
      );
    } catch (error) {
      this.#holder.replaceChildren(
        el("p", { class: "wrong" }, error instanceof Error ? error.message : String(error)),
      );
    }
  }
}
