/**
 * A browser's Worker over worker_threads. jax-js uses threads only where there is one, so in Node its users get a single
 * thread; with this it is measured at its best.
 */
import { resolveObjectURL } from "node:buffer";
import { availableParallelism } from "node:os";
import { Worker as NodeWorker } from "node:worker_threads";

const PRELUDE = `const { parentPort } = require("node:worker_threads");
globalThis.self = globalThis;
globalThis.postMessage = (message) => parentPort.postMessage(message);
parentPort.on("message", (data) => self.onmessage({ data }));
`;

class WebWorker {
  onmessage = null;
  onerror = null;
  #waiting = [];
  #worker;

  constructor(url) {
    void this.#start(url);
  }

  async #start(url) {
    const source = await resolveObjectURL(String(url)).text();
    this.#worker = new NodeWorker(PRELUDE + source, { eval: true });
    this.#worker.unref();
    this.#worker.on("message", (data) => this.onmessage?.({ data }));
    this.#worker.on("error", (error) => {
      if (this.onerror) this.onerror(error);
      else console.error(error);
    });
    for (const message of this.#waiting) this.#worker.postMessage(message);
  }

  postMessage(message) {
    if (this.#worker) this.#worker.postMessage(message);
    else this.#waiting.push(message);
  }
}

export function installWorkers() {
  globalThis.Worker = WebWorker;
  const navigator = globalThis.navigator ?? {};
  const define = (target, name, value) => Object.defineProperty(target, name, { value, configurable: true });
  define(navigator, "hardwareConcurrency", availableParallelism());
  if (globalThis.navigator === undefined) define(globalThis, "navigator", navigator);
}
