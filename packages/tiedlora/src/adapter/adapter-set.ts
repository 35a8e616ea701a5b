/**
 * All adapters of one model, by name, and which of them act when the model runs:
 *
 * - Outside of scopes, the active ones. Within a scope, those that the scope has chosen, active or not; in a mixed batch, one for
 *   each row. Layers of adapters ask the set at each call (`runs`, `rows`).
 * - Merged adapters always act, since they are in the weights, except in scopes without adapters and in mixed batches.
 * - Some adapters replace parameters of the model by trained copies, and merging replaces weights: whenever the above changes, `sync`
 *   puts the parameters that are to act into the model's fields.
 */
import type * as nn from "@tiedlora/nn";
import { setSelector, streamedModel } from "../model.ts";
import type { AttachedAdapter } from "./attached.ts";
import { adaptableModules, type AdaptableModule } from "./modules.ts";
import { computeMerged, type MergeOptions } from "./merge.ts";
import { suggestion } from "../nearest.ts";
import { checkReplaced, Overlay } from "./overlay.ts";
import { BASE, RowGroups } from "./rows.ts";
import { type Choice, Scopes } from "./scopes.ts";
import { putOn, takeOff } from "./stacks.ts";

interface Merged {
  readonly names: readonly string[];
  /** The merged parameters, by the path of the weight or bias that each replaces. */
  readonly parameters: ReadonlyMap<string, nn.Parameter>;
}

/** The adapters of one model, as `adaptersOf` returns them. A method that throws leaves model and adapters unchanged. */
export class AdapterSet<A extends AttachedAdapter = AttachedAdapter> implements nn.AdapterSelector {
  readonly model: nn.Module;
  readonly hosts: ReadonlyMap<string, AdaptableModule>;
  readonly #adapters: Map<string, A> = new Map<string, A>();
  readonly #overlay: Overlay;
  readonly #scopes: Scopes = new Scopes(() => this.sync());
  /** The groups of rows by the choice object of a call: a generation passes the same object for each token. */
  readonly #groups = new WeakMap<object, RowGroups>();
  #merged: Merged | null = null;

  constructor(model: nn.Module) {
    this.model = model;
    this.hosts = adaptableModules(model);
    this.#overlay = new Overlay(model);
    setSelector(model, this);
  }

  // The adapters by name

  /** The names of all adapters, in the order in which they were attached. */
  get names(): string[] {
    return [...this.#adapters.keys()];
  }

  /** Whether the model has an adapter of that name. */
  has(name: string): boolean {
    return this.#adapters.has(name);
  }

  /** The adapter of that name. Throws if there is none; the error suggests a similar name, or lists all names. */
  get(name: string): A {
    const found = this.#adapters.get(name);
    if (found !== undefined) return found;
    throw new Error(`the model has no adapter "${name}"; ${suggestion(name, this.names)}`);
  }

  /** The names of the adapters that take part when the model runs outside of scopes. */
  get active(): string[] {
    return this.names.filter((name) => this.#adapters.get(name)!.active);
  }

  /** Makes exactly the named adapters take part from now on; without a name, none. Throws within a scope. */
  setActive(...names: readonly string[]): void {
    this.#scopes.checkNone("setActive");
    const wanted = new Set(names.map((name) => this.get(name)));
    checkReplaced([...wanted]);
    for (const adapter of this.#adapters.values()) adapter.switch(wanted.has(adapter));
    this.sync();
  }

  /**
   * Puts an adapter on the model, and freezes the model's own parameters; for `Adapter.attach`. Allowed within scopes, where it does
   * not take part.
   */
  add(adapter: A): void {
    if (this.#adapters.get(adapter.name) === adapter) return;
    this.checkName(adapter.name);
    if (adapter.active) checkReplaced([...this.#active(), adapter]);
    for (const [, parameter] of this.#overlay.parameters()) parameter.requiresGrad = false;
    this.#adapters.set(adapter.name, adapter);
    putOn(adapter, this);
    this.sync();
  }

  /**
   * Replaces the adapter of the same name; the model and its compiled programs stay. Throws while that adapter is merged, and within
   * a scope that has chosen it.
   */
  swap(adapter: A): void {
    const old = this.get(adapter.name);
    if (old === adapter) return;
    if (this.mergedNames.includes(adapter.name))
      throw new Error(`"${adapter.name}" is merged into the weights; unmerge it before it is replaced`);
    this.#scopes.checkUnchosen("replaced", [adapter.name]);
    checkReplaced([...this.#active().filter((one) => one !== old), ...(old.active ? [adapter] : [])]);
    adapter.switch(old.active);
    const order = [...this.#adapters.values()].map((one) => (one === old ? adapter : one));
    takeOff(old, this);
    this.#adapters.clear();
    for (const one of order) this.#adapters.set(one.name, one);
    putOn(adapter, this);
    this.sync();
  }

  /** Takes an adapter off. Throws if there is none of this name, while it is merged, and within a scope that has chosen it. */
  delete(name: string): void {
    this.get(name);
    if (this.mergedNames.includes(name))
      throw new Error(`"${name}" is merged into the weights; unmerge, or mergeAndUnload, first`);
    this.remove(name);
  }

  /** Takes an adapter off, if there is one of this name; for `Adapter.detach`. Throws within a scope that has chosen it. */
  remove(name: string): void {
    const adapter = this.#adapters.get(name);
    if (adapter === undefined) return;
    this.#scopes.checkUnchosen("taken off", [name]);
    this.#adapters.delete(name);
    takeOff(adapter, this);
    this.sync();
  }

  /**
   * Takes all adapters off, also merged ones; the model's outputs are then those without adapters, bit for bit. Throws within a scope
   * that has chosen one of them.
   */
  unload(): void {
    this.#scopes.checkUnchosen("taken off", this.names);
    this.#merged = null;
    for (const name of this.names) this.remove(name);
  }

  // Scopes

  /**
   * Runs synchronous `work` with exactly the chosen adapters, whichever are active. Calls of a `Decoder` with `{ adapters }` do the
   * same, so requests with different adapters can be in progress at once. Throws if `work` returns a promise.
   */
  using<T>(choice: nn.AdapterChoice, work: () => T): T {
    return this.#scopes.run(this.#checkedChoice(choice), work);
  }

  /** Returns a function that always runs `work` with the adapters that take part now. `work` must be synchronous. */
  bound<A extends unknown[], T>(work: (...args: A) => T): (...args: A) => T {
    const choice = this.#scopes.current ?? { names: this.#acting() };
    return (...args) => {
      if ("names" in choice) for (const name of choice.names) this.get(name); // throws if the adapter was deleted since
      return this.#scopes.run(choice, () => work(...args));
    };
  }

  /**
   * Runs `work` on the model without adapters, then restores the previous choice. If `work` returns a promise, the scope lasts
   * until the promise is settled, and applies to all uses of the model until then. The same holds for `withActive` and `mixed`; a
   * call of one of the three with another choice, before the promise is settled, throws.
   */
  disabled<T>(work: () => T): T {
    return this.#scopes.hold("disabled", { names: [] }, work);
  }

  /** Runs `work` with exactly the named adapters, then restores the previous choice. */
  withActive<T>(names: readonly string[], work: () => T): T {
    return this.#scopes.hold("withActive", this.#checkedChoice(names), work);
  }

  /**
   * Runs `work` on mixed batches: row i of every batch goes through the adapter `names[i]` alone, active or not, or through no
   * adapter for "__base__".
   */
  mixed<T>(names: readonly string[], work: () => T): T {
    return this.#scopes.hold("mixed", this.#checkedChoice({ rows: names }), work);
  }

  /** Checks a choice. Throws if the chosen adapters cannot take part, or not together. */
  #checkedChoice(choice: nn.AdapterChoice): Choice {
    if (typeof choice === "string") return this.#checkedChoice([choice]);
    if ("rows" in choice) return { rows: this.#rowGroups(choice) };
    const names = [...new Set(choice)];
    checkReplaced(names.map((name) => this.get(name)));
    const left = this.mergedNames.filter((name) => !names.includes(name));
    if (names.length > 0 && left.length > 0)
      throw new Error(
        `"${left.join('", "')}" merged into the weights would take part beside "${names.join('", "')}"; unmerge first, or name all of them`,
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
      throw new Error(
        `"${this.#merged.names.join('", "')}" merged into the weights would take part in every row; unmerge before mixing`,
      );
    if (this.rows !== null)
      throw new Error("a mixed batch cannot be within another; name the adapters of all rows at once");
    const known = this.#groups.get(choice);
    if (
      known?.names.every((name, row) => name === choice.rows[row]) &&
      known.names.length === choice.rows.length
    )
      return known;
    const groups = new RowGroups([...choice.rows], [...this.hosts.values()][0]!.weight.device!);
    this.#groups.set(choice, groups);
    return groups;
  }

  // Merging

  /** The names of the adapters that are merged into the weights. */
  get mergedNames(): readonly string[] {
    return this.#merged?.names ?? [];
  }

  /**
   * Merges adapters (default: the active ones) into the weights: the model then runs without extra work, and gives the same outputs
   * up to rounding. Sums in f32 and rounds once, to the type of the weight. Keeps the original weights, so that `unmerge` restores
   * them bit for bit.
   *
   * Throws, and changes nothing, if a result is not finite, if a weight is also used by another module (see `untie`), or if an
   * adapter's update is not a linear map.
   */
  async merge(options: MergeOptions = {}): Promise<void> {
    this.#scopes.checkNone("merge");
    if (streamedModel(this.model) !== null)
      throw new Error(
        "merge: not all weights of this model are in memory (it was loaded with { stream: true }), so the merged ones have no place; " +
          "write the merged model to files instead: saveMerged, or tiedlora merge",
      );
    const fresh = (options.names ?? this.active).map((name) => this.get(name));
    const again = fresh.find(({ name }) => this.mergedNames.includes(name));
    if (again !== undefined) throw new Error(`"${again.name}" is merged already; unmerge it first`);
    if (fresh.length === 0)
      throw new Error(
        "there is no adapter to merge: none is active, and no name was given; make one active, or name one",
      );
    const names = [...this.mergedNames, ...fresh.map(({ name }) => name)];
    // Always in the order of attachment and from the model's own weights: merging at once or one by one gives the same bits.
    const ordered = [...this.#adapters.values()].filter(({ name }) => names.includes(name));
    checkReplaced([...new Set([...ordered, ...this.#active()])]);
    const before = this.#merged;
    const after = { names: ordered.map(({ name }) => name), parameters: new Map<string, nn.Parameter>() };
    try {
      this.#merged = after; // for `computeMerged`: the model's own weights, and the adapters' copies of replaced parameters
      this.sync();
      this.#merged = { ...after, parameters: await computeMerged(ordered, this.ownParameters(), options) };
    } catch (error) {
      this.#merged = before;
      throw error;
    } finally {
      this.sync();
    }
  }

  /** Restores the model's own weights, bit for bit; the adapters act beside them again. Throws if nothing is merged. */
  unmerge(): void {
    this.#scopes.checkNone("unmerge");
    if (this.#merged === null)
      throw new Error("there is nothing to unmerge: no adapter is merged into the weights");
    this.#merged = null;
    this.sync();
  }

  /** Merges adapters (default: the active ones), and takes all adapters off. The model's old weights are not kept. */
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
    this.#overlay.settle(this.#replacements().keys()); // the merged weights are now the model's own
    this.#merged = null;
    for (const name of this.names) this.remove(name);
  }

  // What acts when the model runs

  /** The rows of the mixed batch whose scope is the innermost one, for `AdapterStack`; null if there is none. */
  get rows(): RowGroups | null {
    const choice = this.#scopes.current;
    return choice !== null && "rows" in choice ? choice.rows : null;
  }

  /** Whether an adapter's layers act beside the weights when the model runs now. */
  runs(adapter: A): boolean {
    return this.#isChosen(adapter) && !this.mergedNames.includes(adapter.name);
  }

  /** Whether the innermost scope has chosen an adapter or, outside of scopes, the adapter is active. */
  #isChosen(adapter: A): boolean {
    const choice = this.#scopes.current;
    if (choice === null) return adapter.active;
    return "names" in choice && choice.names.includes(adapter.name);
  }

  /** The names of the adapters that act when the model runs now, beside the weights or merged into them. */
  #acting(): string[] {
    const acts = (adapter: A): boolean => this.#isChosen(adapter) || this.mergedNames.includes(adapter.name);
    return [...this.#adapters.values()].filter(acts).map(({ name }) => name);
  }

  /** Updates the parameters in the model's fields to the adapters that act now. */
  sync(): void {
    const choice = this.#scopes.current;
    const isBase = choice !== null && ("rows" in choice || choice.names.length === 0);
    this.#overlay.show(isBase ? new Map() : this.#replacements());
  }

  /** The parameters that replace the model's own, by path: copies of the adapters that act, and over them the merged weights. */
  #replacements(): Map<string, nn.Parameter> {
    const acting = this.#acting();
    const adapters = [...this.#adapters.values()].filter(({ name }) => acting.includes(name));
    const copies = adapters.flatMap((adapter) => [...adapter.replacements()]);
    return new Map([...copies, ...(this.#merged?.parameters ?? [])]);
  }

  /** The model's own parameters by path, even where adapters' copies or merged weights replace them now. */
  ownParameters(): Map<string, nn.Parameter> {
    return new Map(this.#overlay.parameters());
  }

  // Checks

  /** Throws if a new adapter cannot have this name: another adapter has it, or it is "__base__". */
  checkName(name: string): void {
    if (name === BASE) throw new Error(`"${BASE}" means the model without adapters; give another name`);
    if (!this.#adapters.has(name)) return;
    throw new Error(
      `the model already has an adapter "${name}"; give another name, or detach that one first`,
    );
  }

  /** Throws if an adapter cannot be switched on or off now. */
  checkSwitch(adapter: A, active: boolean): void {
    this.#scopes.checkNone(`${adapter.name}.active`);
    if (active) checkReplaced([...new Set([...this.#active(), adapter])]);
  }

  #active(): A[] {
    return [...this.#adapters.values()].filter(({ active }) => active);
  }
}
