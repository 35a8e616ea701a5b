/**
 * Scopes: while a function runs, the adapters of the scope take part instead of the active ones. The innermost scope counts.
 * A scope of asynchronous work lasts until its promise is settled, and applies to all uses of the model until then. A second scope
 * of `hold` with another choice would mix the two, so it throws.
 */
import type { RowGroups } from "./rows.ts";

/** The adapters that take part: those in `names` (none: the model's own weights alone), or one for each row of a batch. */
export type Choice = { readonly names: readonly string[] } | { readonly rows: RowGroups };

interface Scope {
  readonly choice: Choice;
  /** Whether its work has returned a promise that is not settled yet. */
  pending: boolean;
}

export class Scopes {
  readonly #open: Scope[] = [];
  readonly #onChange: () => void;

  /** `onChange` is called whenever `current` may have changed. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /** The choice of the innermost scope; null outside of all scopes. */
  get current(): Choice | null {
    return this.#open.at(-1)?.choice ?? null;
  }

  /** Runs synchronous work. Allowed in every scope, because nothing else can run meanwhile. Throws if `work` returns a promise. */
  run<T>(choice: Choice, work: () => T): T {
    const scope = this.#enter(choice);
    let result: T;
    try {
      result = work();
    } finally {
      this.#leave(scope);
    }
    if (!isPromise(result)) return result;
    result.catch(() => undefined); // its rejection must not hide the error below
    throw new TypeError(
      "the work in this scope is asynchronous, but the choice of adapters ends when the function returns; " +
        "name the adapters in each call inside of it: model.forward(ids, { adapters })",
    );
  }

  /**
   * Runs work that may be asynchronous; `what` is the caller's name, for messages. Throws while the innermost scope has another
   * choice and its asynchronous work is not done.
   */
  hold<T>(what: string, choice: Choice, work: () => T): T {
    this.#checkOverlap(what, choice);
    const scope = this.#enter(choice);
    let result: T;
    try {
      result = work();
    } catch (error) {
      this.#leave(scope);
      throw error;
    }
    if (isPromise(result)) {
      scope.pending = true;
      return result.finally(() => this.#leave(scope)) as T;
    }
    this.#leave(scope);
    return result;
  }

  /** Throws if a scope is open, because a change by `what` (the caller's name) would have no effect before the scope's end. */
  checkNone(what: string): void {
    const { current } = this;
    if (current === null) return;
    throw new Error(
      `${what} would have no effect within a scope in which ${describe(current)} ${chosen(current)}; call it after the scope has ended`,
    );
  }

  /**
   * Throws if an open scope has chosen one of the named adapters, whose work would silently go on without it or with another one;
   * `change` says what cannot be done, for the message.
   */
  checkUnchosen(change: string, names: readonly string[]): void {
    for (const { choice } of this.#open) {
      const name = names.find((one) => listed(choice).includes(one));
      if (name !== undefined)
        throw new Error(
          `adapter "${name}" cannot be ${change} within a scope in which ${describe(choice)} ${chosen(choice)}; do it after the scope has ended`,
        );
    }
  }

  #checkOverlap(what: string, choice: Choice): void {
    const last = this.#open.at(-1);
    if (last === undefined || !last.pending || same(last.choice, choice)) return;
    throw new Error(
      `${what}: ${describe(choice)} cannot be chosen while ${describe(last.choice)} ${chosen(last.choice)} for asynchronous work ` +
        "that is not done: the two would mix. Await that work first, or name the adapters in each call: " +
        "model.forward(ids, { adapters }), generateText(model, tokenizer, prompts, { adapters })",
    );
  }

  #enter(choice: Choice): Scope {
    const scope = { choice, pending: false };
    this.#open.push(scope);
    this.#onChange();
    return scope;
  }

  #leave(scope: Scope): void {
    this.#open.splice(this.#open.indexOf(scope), 1);
    this.#onChange();
  }
}

function isPromise(value: unknown): value is Promise<unknown> {
  return value instanceof Promise;
}

function listed(choice: Choice): readonly string[] {
  return "rows" in choice ? choice.rows.names : choice.names;
}

function same(a: Choice, b: Choice): boolean {
  const [x, y] = [listed(a), listed(b)];
  return "rows" in a === "rows" in b && x.length === y.length && x.every((name, i) => name === y[i]);
}

function describe(choice: Choice): string {
  const names = listed(choice)
    .map((name) => `"${name}"`)
    .join(", ");
  if ("rows" in choice) return `a mixed batch of ${names}`;
  return names === "" ? "the model without adapters" : names;
}

function chosen(choice: Choice): string {
  return "names" in choice && choice.names.length > 1 ? "are chosen" : "is chosen";
}
