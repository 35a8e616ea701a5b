/**
 * A training passes the gate between two pieces of work (steps or tokens). There messages arrive, guests use the model, and
 * the training is paused or ended. A stopped training may still show what it has learned; an abandoned one must end at once.
 */

/** How often messages are let in: often enough to seem immediate. */
const BREATHE_EVERY_MS = 30;

export class Gate {
  #held: Deferred | null = null;
  #stopped = false;
  #abandoned = false;
  #guests: (() => Promise<void>)[] = [];
  #breathed = performance.now();
  readonly #finished = deferred();

  /** Whether the training must take no more steps. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Whether the training must end at once. */
  get abandoned(): boolean {
    return this.#abandoned;
  }

  /** Lets messages in, serves guests, and waits while the gate is closed. */
  async pass(): Promise<void> {
    if (performance.now() - this.#breathed > BREATHE_EVERY_MS) {
      await turn();
      this.#breathed = performance.now();
    }
    for (;;) {
      const guest = this.#guests.shift();
      if (guest) await guest();
      else if (this.#held) await this.#held.promise;
      else return;
    }
  }

  close(): void {
    this.#held ??= deferred();
  }

  open(): void {
    this.#held?.resolve();
    this.#held = null;
  }

  stop(): void {
    this.#stopped = true;
    this.open();
  }

  /** Ends the training at once. Resolves when it has ended. */
  abandon(): Promise<void> {
    this.#abandoned = true;
    this.stop();
    return this.#finished.promise;
  }

  /** Marks the training as ended, after serving the guests that still wait. */
  async finish(): Promise<void> {
    this.open();
    await this.pass();
    this.#finished.resolve();
  }

  /** Runs `work` as a guest, between two pieces of the training's work. Rejects if `work` does. */
  borrow(work: () => Promise<void>): Promise<void> {
    const { promise, resolve } = deferred();
    let outcome: Promise<void> = promise;
    this.#guests.push(() => {
      outcome = work();
      return outcome.catch(() => undefined).finally(resolve); // the caller of `borrow` gets the failure, not the training
    });
    const held = this.#held;
    if (held) {
      this.#held = deferred();
      held.resolve(); // wakes the training, which serves its guests and waits again
    }
    return promise.then(() => outcome);
  }
}

/** Waits for one turn of the event loop. A timer would take four milliseconds. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    const heard = (): void => {
      port1.close();
      resolve();
    };
    port1.addEventListener("message", heard, { once: true });
    port1.start();
    port2.postMessage(null);
  });
}

interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

function deferred(): Deferred {
  let resolve = (): void => {};
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}
