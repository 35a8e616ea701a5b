/**
 * What a training passes between two pieces of work, a step or a token: messages come in, others use the model, and it is
 * held up or ended. It ends in two stages: stopped, it may still say what it has learned; abandoned, it gives way at once.
 */

/** Often enough to seem immediate. */
const BREATHE_EVERY_MS = 30;

export class Gate {
  #held: Deferred | null = null;
  #stopped = false;
  #abandoned = false;
  #guests: (() => Promise<void>)[] = [];
  #breathed = performance.now();
  readonly #finished = deferred();

  /** No more steps are wanted. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Nothing more is wanted at all. */
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

  /** Resolves when the training has ended. */
  abandon(): Promise<void> {
    this.#abandoned = true;
    this.stop();
    return this.#finished.promise;
  }

  /** The training has ended; guests that still wait are served. */
  async finish(): Promise<void> {
    this.open();
    await this.pass();
    this.#finished.resolve();
  }

  /** Runs `work` between two pieces of the training's. */
  borrow(work: () => Promise<void>): Promise<void> {
    const { promise, resolve } = deferred();
    let outcome: Promise<void> = promise;
    this.#guests.push(() => {
      outcome = work();
      return outcome.catch(() => undefined).finally(resolve); // who asked is told of a failure, not the training
    });
    const held = this.#held;
    if (held) {
      this.#held = deferred();
      held.resolve(); // wakes the training, which serves its guests and waits again
    }
    return promise.then(() => outcome);
  }
}

/** One turn of the event loop. A timer would take four milliseconds. */
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
