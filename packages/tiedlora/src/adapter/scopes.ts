/**
 * Scopes: for the time of a piece of work, other adapters take part than those that are active. The innermost scope counts.
 * One of asynchronous work lasts until its promise is settled, and all who use the model meanwhile are in it: a second one that
 * chooses otherwise would mix the two, and is refused.
 */
import type { RowGroups } from "./rows.ts";

/** What takes part: the adapters of these names (none: the model's own weights alone), or one for each row of a batch. */
export type Choice = { readonly names: readonly string[] } | { readonly rows: RowGroups };

interface Scope {
  readonly choice: Choice;
  /** Whether its work has returned, and is not done yet. */
  pending: boolean;
}

export class Scopes {
  readonly #open: Scope[] = [];
  readonly #onChange: () => void;

  /** `onChange` is called whenever `current` may have changed. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /** Null outside of all scopes. */
  get current(): Choice | null {
    return this.#open.at(-1)?.choice ?? null;
  }

  /** Runs synchronous work. Never refused: nothing else can run meanwhile. */
  run<T>(choice: Choice, work: () => T): T {
    const scope = this.#enter(choice);
    let result: T;
    try {
      result = work();
    } finally {
      this.#leave(scope);
    }
    if (!isPromise(result)) return result;
    result.catch(() => undefined); // its failure would only hide the mistake
    throw new TypeError(
      "the work in this scope is asynchronous, but the choice of adapters ends when the function returns; " +
        "name the adapters in each call inside of it: model.forward(ids, { adapters })",
    );
  }

  /** Runs work that may be asynchronous; `what` is the caller's name, for messages. */
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

  /** Throws if a scope is open: what `what` changes would have no effect before its end. */
  checkNone(what: string): void {
    const { current } = this;
    if (current === null) return;
    throw new Error(
      `${what}: ${describe(current)} ${chosen(current)} for the time of work that is not done, so this would have no effect; ` +
        "call it after that",
    );
  }

  #checkOverlap(what: string, choice: Choice): void {
    const last = this.#open.at(-1);
    if (last === undefined || !last.pending || same(last.choice, choice)) return;
    throw new Error(
      `${what}: ${describe(choice)} asked for while ${describe(last.choice)} ${chosen(last.choice)} for asynchronous work that ` +
        "is not done; the two would mix. Await that first, or name the adapters in each call: " +
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
