/** All adapters of one model, by name: which of them are active, and scopes in which others are, or none. */
import type * as nn from "@tiedlora/nn";
import { setSelector } from "../model.ts";
import type { AttachedAdapter } from "./attached.ts";
import { adaptableModules, type AdaptableModule } from "./modules.ts";
import { computeMerged, type MergeOptions } from "./merge.ts";
import { nearest } from "../nearest.ts";
import { AdapterStack, type AdapterLayer } from "./layer.ts";
import { Overlay } from "./overlay.ts";
import { BASE, RowGroups } from "./rows.ts";
import { type Choice, Scopes } from "./scopes.ts";

interface Merged {
  readonly names: readonly string[];
  /** By the path of the weight or bias that they stand in for. */
  readonly parameters: ReadonlyMap<string, nn.Parameter>;
}

/** See `adaptersOf`. Errors leave everything as it was. */
export class AdapterSet<A extends AttachedAdapter = AttachedAdapter> implements nn.AdapterSelector {
  readonly model: nn.Module;
  readonly hosts: ReadonlyMap<string, AdaptableModule>;
  readonly #adapters: Map<string, A> = new Map<string, A>();
  readonly #overlay: Overlay;
  readonly #scopes: Scopes = new Scopes(() => this.sync());
  /** The groups of rows that belong to a call's choice: a generation asks for the same at each token. */
  readonly #groups = new WeakMap<object, RowGroups>();
  #merged: Merged | null = null;

  constructor(model: nn.Module) {
    this.model = model;
    this.hosts = adaptableModules(model);
    this.#overlay = new Overlay(model);
    setSelector(model, this);
  }

  /** In the order in which they were attached. */
  get names(): string[] {
    return [...this.#adapters.keys()];
  }

  /** Whether the model has an adapter of that name. */
  has(name: string): boolean {
    return this.#adapters.has(name);
  }

  /** The adapter of that name. Throws if there is none, naming those that are there. */
  get(name: string): A {
    const found = this.#adapters.get(name);
    if (found !== undefined) return found;
    const close = nearest(name, this.names);
    const hint = close === null ? `there are ${this.names.join(", ") || "none"}` : `did you mean "${close}"?`;
    throw new Error(`the model has no adapter "${name}"; ${hint}`);
  }

  /** The names of those that take part when the model runs, outside of scopes. */
  get active(): string[] {
    return this.names.filter((name) => this.#adapters.get(name)!.active);
  }

  /** Makes exactly these take part from now on; no name: none. Refused within a scope. */
  setActive(...names: readonly string[]): void {
    this.#scopes.checkNone("setActive");
    const wanted = new Set(names.map((name) => this.get(name)));
    this.#checkReplaced([...wanted]);
    for (const adapter of this.#adapters.values()) adapter.switch(wanted.has(adapter));
    this.sync();
  }

  /**
   * Runs synchronous `work` with exactly the chosen adapters, whatever is active. Calls of a `Decoder` do the same for
   * `{ adapters }`; so requests with different adapters can be under way at once.
   */
  using<T>(choice: nn.AdapterChoice, work: () => T): T {
    return this.#scopes.run(this.#resolve(choice), work);
  }

  /** `work`, to be run with the adapters that take part now, whenever it is called. It must not be asynchronous. */
  bound<A extends unknown[], T>(work: (...args: A) => T): (...args: A) => T {
    const choice = this.#scopes.current ?? { names: this.#takingPart() };
    return (...args) => {
      if ("names" in choice) for (const name of choice.names) this.get(name); // an error if it is gone by now
      return this.#scopes.run(choice, () => work(...args));
    };
  }

  /**
   * Runs `work` on the model without adapters; then all is as before. If `work` gives a promise, the scope lasts until that
   * is settled, for all who use the model meanwhile; so do the scopes below. Another asynchronous scope that overlaps with it,
   * and chooses otherwise, is refused.
   */
  disabled<T>(work: () => T): T {
    return this.#scopes.hold("disabled", { names: [] }, work);
  }

  /** Runs `work` with exactly these adapters; then all is as before. */
  withActive<T>(names: readonly string[], work: () => T): T {
    return this.#scopes.hold("withActive", this.#resolve(names), work);
  }

  /**
   * Runs `work` on mixed batches: row i of every batch goes through the adapter `names[i]` alone, or through none for
   * "__base__"; whether they are active makes no difference.
   */
  mixed<T>(names: readonly string[], work: () => T): T {
    return this.#scopes.hold("mixed", this.#resolve({ rows: names }), work);
  }

  /** Checks a choice. */
  #resolve(choice: nn.AdapterChoice): Choice {
    if (typeof choice === "string") return this.#resolve([choice]);
    if ("rows" in choice) return { rows: this.#rowGroups(choice) };
    const names = [...new Set(choice)];
    this.#checkReplaced(names.map((name) => this.get(name)));
    const left = this.mergedNames.filter((name) => !names.includes(name));
    if (names.length > 0 && left.length > 0)
      throw new Error(
        `"${left.join('", "')}" merged into the weights would take part beside "${names.join('", "')}"; unmerge first, or name all`,
      );
    return { names };
  }

  #rowGroups(choice: { readonly rows: readonly string[] }): RowGroups {
    const used = [...new Set(choice.rows)].filter((name) => name !== BASE).map((name) => this.get(name));
    const replacing = used.find(({ plan }) => plan.replaced.length > 0);
    if (replacing !== undefined) {
      const [first] = replacing.plan.replaced;
      throw new Error(
        `adapter "${replacing.name}" replaces ${first!.path}, which all rows of a batch share: it cannot be mixed with others`,
      );
    }
    if (this.#merged !== null)
      throw new Error(`"${this.#merged.names.join('", "')}" merged into the weights; unmerge before mixing`);
    if (this.rows !== null) throw new Error("a mixed batch within a mixed batch; name all rows at once");
    const known = this.#groups.get(choice);
    if (known !== undefined) return known;
    const groups = new RowGroups([...choice.rows], [...this.hosts.values()][0]!.weight.device!);
    this.#groups.set(choice, groups);
    return groups;
  }

  /** What stacks ask: the rows of a mixed batch, or null. */
  get rows(): RowGroups | null {
    const choice = this.#scopes.current;
    return choice !== null && "rows" in choice ? choice.rows : null;
  }

  /** Whether an adapter's layers act when the model runs. */
  runs(adapter: A): boolean {
    return this.#takesPart(adapter) && !this.mergedNames.includes(adapter.name);
  }

  #takesPart(adapter: A): boolean {
    const choice = this.#scopes.current;
    if (choice === null) return adapter.active;
    return "names" in choice && choice.names.includes(adapter.name);
  }

  /** The names of those that act when the model runs now, be it beside the weights or merged into them. */
  #takingPart(): string[] {
    return [...this.#adapters.values()]
      .filter((adapter) => this.#takesPart(adapter) || this.mergedNames.includes(adapter.name))
      .map(({ name }) => name);
  }

  /** The names of those that are merged into the weights. */
  get mergedNames(): readonly string[] {
    return this.#merged?.names ?? [];
  }

  /**
   * Writes adapters into the weights: the model then runs without extra work, and answers alike. Sums in f32 and rounds
   * once, to the type of the weight. The weights themselves are kept, so that `unmerge` restores them bit for bit. Default: the active ones.
   *
   * Throws, and changes nothing, if a result is not finite, if a weight is used elsewhere too (see `untie`), or if an
   * adapter's update is not a linear map.
   */
  async merge(options: MergeOptions = {}): Promise<void> {
    this.#scopes.checkNone("merge");
    const fresh = (options.names ?? this.active).map((name) => this.get(name));
    const again = fresh.find(({ name }) => this.mergedNames.includes(name));
    if (again !== undefined) throw new Error(`"${again.name}" is merged already; unmerge first`);
    if (fresh.length === 0) throw new Error("no adapter to merge: none is active, and no name was given");
    const names = [...this.mergedNames, ...fresh.map(({ name }) => name)];
    // In the order of attachment, from the model's own weights: the same bits in one go or one after another.
    const ordered = [...this.#adapters.values()].filter(({ name }) => names.includes(name));
    this.#checkReplaced([...new Set([...ordered, ...this.#active()])]);
    const before = this.#merged;
    const after = { names: ordered.map(({ name }) => name), parameters: new Map<string, nn.Parameter>() };
    try {
      this.#merged = after; // the weights are the model's own, the replaced parameters those of the adapters
      this.sync();
      this.#merged = { ...after, parameters: await computeMerged(ordered, this.ownParameters(), options) };
    } catch (error) {
      this.#merged = before;
      throw error;
    } finally {
      this.sync();
    }
  }

  /** Puts the model's own weights back, bit for bit; the adapters act beside them again. */
  unmerge(): void {
    this.#scopes.checkNone("unmerge");
    if (this.#merged === null) throw new Error("nothing is merged");
    this.#merged = null;
    this.sync();
  }

  /** Takes all adapters off; the model answers as before them, bit for bit. */
  unload(): void {
    this.#merged = null;
    for (const name of this.names) this.remove(name);
  }

  /** Merges, and takes all adapters off: the model is then a plain one. The old weights are given up. */
  async mergeAndUnload(options: MergeOptions = {}): Promise<void> {
    this.#scopes.checkNone("mergeAndUnload");
    const { names } = options;
    if (
      this.#merged === null ||
      names !== undefined ||
      this.active.some((name) => !this.mergedNames.includes(name))
    )
      await this.merge({
        ...options,
        names: names ?? this.active.filter((name) => !this.mergedNames.includes(name)),
      });
    const merged = this.#merged!;
    this.#merged = null;
    this.#overlay.settle(this.#wanted(merged).keys());
    for (const name of this.names) this.remove(name);
  }

  /** Takes an adapter off. Refused while it is merged. */
  delete(name: string): void {
    this.get(name);
    if (this.mergedNames.includes(name))
      throw new Error(`"${name}" is merged into the weights; unmerge, or mergeAndUnload, first`);
    this.remove(name);
  }

  /** Replaces the adapter of the same name: a hot swap; the model and its compiled programs stay. */
  swap(adapter: A): void {
    const old = this.get(adapter.name);
    if (old === adapter) return;
    if (this.mergedNames.includes(adapter.name))
      throw new Error(`"${adapter.name}" is merged; unmerge first`);
    this.#checkReplaced([...this.#active().filter((one) => one !== old), ...(old.active ? [adapter] : [])]);
    adapter.switch(old.active);
    const order = [...this.#adapters.values()].map((one) => (one === old ? adapter : one));
    this.#takeOff(old);
    this.#adapters.clear();
    for (const one of order) this.#adapters.set(one.name, one);
    this.#putOn(adapter);
    this.sync();
  }

  /** For `Adapter.attach`. */
  add(adapter: A): void {
    if (this.#adapters.get(adapter.name) === adapter) return;
    this.checkName(adapter.name);
    if (adapter.active) this.#checkReplaced([...this.#active(), adapter]);
    for (const [, parameter] of this.#overlay.parameters()) parameter.requiresGrad = false;
    this.#adapters.set(adapter.name, adapter);
    this.#putOn(adapter);
    this.sync();
  }

  /** For `Adapter.detach`. */
  remove(name: string): void {
    const adapter = this.#adapters.get(name);
    if (adapter === undefined) return;
    this.#adapters.delete(name);
    this.#takeOff(adapter);
    this.sync();
  }

  /** Throws if there is an adapter of this name. */
  checkName(name: string): void {
    if (name === BASE) throw new Error(`"${BASE}" means the model without adapters; give another name`);
    if (!this.#adapters.has(name)) return;
    throw new Error(
      `the model already has an adapter "${name}"; give another name, or detach that one first`,
    );
  }

  /** The model's own parameters by path, whatever stands in for them now. */
  ownParameters(): Map<string, nn.Parameter> {
    return new Map(this.#overlay.parameters());
  }

  /** Throws if an adapter cannot be switched on or off now. */
  checkSwitch(adapter: A, active: boolean): void {
    this.#scopes.checkNone(`${adapter.name}.active`);
    if (active) this.#checkReplaced([...new Set([...this.#active(), adapter])]);
  }

  /** Makes the model's fields follow what is active, merged and disabled. */
  sync(): void {
    const choice = this.#scopes.current;
    const own = choice !== null && ("rows" in choice || choice.names.length === 0);
    this.#overlay.show(own ? new Map() : this.#wanted(this.#merged));
  }

  #wanted(merged: Merged | null): Map<string, nn.Parameter> {
    const wanted = new Map<string, nn.Parameter>();
    for (const adapter of this.#adapters.values()) {
      if (!this.#takesPart(adapter) && !merged?.names.includes(adapter.name)) continue;
      for (const [path, parameter] of adapter.replacements()) wanted.set(path, parameter);
    }
    for (const [path, parameter] of merged?.parameters ?? []) wanted.set(path, parameter);
    return wanted;
  }

  #active(): A[] {
    return [...this.#adapters.values()].filter(({ active }) => active);
  }

  #checkReplaced(adapters: readonly A[]): void {
    const owner = new Map<string, string>();
    for (const { name, plan } of adapters) {
      for (const { path } of plan.replaced) {
        const other = owner.get(path);
        if (other !== undefined) {
          throw new Error(
            `adapters "${other}" and "${name}" both replace ${path}; only one of them can be active (adapt: { active: false })`,
          );
        }
        owner.set(path, name);
      }
    }
  }

  #putOn(adapter: A): void {
    for (const [host, layer] of adapter.layers()) {
      if (host.adapter !== null && !(host.adapter instanceof AdapterStack))
        throw new Error("a module carries an adapter that is not of this library; remove it first");
      host.adapter = this.#stack([...(host.adapter?.layers ?? []), layer]);
    }
  }

  #stack(layers: readonly AdapterLayer[]): AdapterStack {
    const order = this.names;
    const at = ({ owner }: AdapterLayer): number => order.indexOf(owner.name);
    return new AdapterStack(
      [...layers].sort((a, b) => at(a) - at(b)),
      this,
    );
  }

  #takeOff(adapter: A): void {
    for (const [host, layer] of adapter.layers()) {
      const layers = (host.adapter as AdapterStack | null)?.layers.filter((one) => one !== layer) ?? [];
      host.adapter = layers.length === 0 ? null : this.#stack(layers);
    }
  }
}
