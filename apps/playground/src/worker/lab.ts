/** The laboratory: a device, a base model, and up to four adapters that are trained in turn, a step each. */
import { cpu } from "@tiedlora/backend-cpu";
import { type WebGpuBackend, webgpu } from "@tiedlora/backend-webgpu";
import type { Device } from "@tiedlora/core";
import { linearSpecs, loadPretrainedFrom, type Pretrained } from "@tiedlora/models";
import { adaptersOf, loadAdapterFiles } from "tiedlora";
import type { BackendChoice, BaseInfo, Experiment, Reply, Request } from "../protocol.ts";
import { dataOf } from "./data.ts";
import { adapterZip, folderOf, pickedFiles, servedFiles } from "./files.ts";
import { complete, Run, tryPrompt } from "./run.ts";
import { shrink } from "./shrink.ts";

const GRADIENTS_EVERY = 5;
/** Completions are shown so many times during a training. */
const LOOKS = 4;
/** Numbers of adapters that came from files start here; those of the page's own methods are below. */
const FIRST_LOADED = 100;

export class Lab {
  readonly #send: (reply: Reply, transfer?: Transferable[]) => void;
  readonly #baseUrl: URL;
  #backend: BackendChoice = "cpu";
  #device: Device | null = null;
  #base: Pretrained | null = null;
  #baseName = "";
  #runs = new Map<number, Run>();
  #gate: Gate | null = null;
  #loaded = FIRST_LOADED;

  constructor(send: (reply: Reply, transfer?: Transferable[]) => void, baseUrl: URL) {
    this.#send = send;
    this.#baseUrl = baseUrl;
  }

  /** Answers a request; what goes wrong is thrown. */
  async answer(request: Request): Promise<void> {
    switch (request.type) {
      case "open":
        return this.#open(request.backend);
      case "loadModel":
        return this.#loadModel(request.files);
      case "loadAdapter":
        return this.#loadAdapter(request.files);
      case "start":
        return this.#train(request.experiment);
      case "pause":
        this.#gate?.close();
        return this.#send({ type: "state", state: "paused" });
      case "resume":
        this.#gate?.open();
        return this.#send({ type: "state", state: "training" });
      case "stop":
        return this.#gate?.end();
      case "tensor":
        return this.#showTensor(request.run, request.path);
      case "complete":
        return this.#complete(request.run, request.prompt);
      case "download":
        return this.#download(request);
    }
  }

  async #open(backend: BackendChoice): Promise<void> {
    await this.#endTraining();
    this.#device?.close();
    this.#device = null;
    this.#device = backend === "webgpu" ? await webgpu() : await cpu();
    this.#backend = backend;
    await this.#use(servedFiles(this.#baseUrl, "base"), "The project's base model");
  }

  async #loadModel(files: readonly File[]): Promise<void> {
    await this.#endTraining();
    await this.#use(await pickedFiles(files), folderOf(files));
  }

  async #use(files: Parameters<typeof loadPretrainedFrom>[0], name: string): Promise<void> {
    const base = await loadPretrainedFrom(files, { device: this.#device! });
    this.#runs.clear();
    this.#base = base;
    this.#baseName = name;
    this.#send({
      type: "ready",
      backend: this.#backend,
      adapter: this.#adapterName(),
      base: this.#info(),
    });
    this.#send({ type: "state", state: "idle" });
  }

  #info(): BaseInfo {
    const { model } = this.#base!;
    const { layers, hidden, vocab } = model.config;
    const linears = linearSpecs(model.config).map((one) => ({ path: one.path, in: one.in, out: one.out }));
    const parameters = model.parameters().reduce((sum, p) => sum + p.size, 0);
    return { name: this.#baseName, parameters, layers, hidden, vocab, linears };
  }

  #adapterName(): string {
    if (this.#backend === "webgpu") {
      const { vendor, architecture, description } = (this.#device!.backend as WebGpuBackend).adapter;
      return [vendor, architecture, description].filter(Boolean).join(" ") || "a GPU";
    }
    const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated === true;
    return isolated
      ? `${navigator.hardwareConcurrency} threads`
      : "one thread (the page is not cross-origin isolated)";
  }

  async #loadAdapter(files: readonly File[]): Promise<void> {
    const id = this.#loaded++;
    const base = this.#base!;
    const adapter = await loadAdapterFiles(base.model, await pickedFiles(files), {
      name: `loaded ${id}`,
      active: false,
    });
    this.#runs.set(id, new Run(id, adapter, base));
    const { trainable } = adapter.count();
    this.#send({ type: "adapterLoaded", run: id, method: adapter.method.name, trainable });
  }

  /** Trains all runs of an experiment in turn, a step each, until all are done or the visitor stops it. */
  async #train(experiment: Experiment): Promise<void> {
    await this.#endTraining();
    const base = this.#base!;
    const data = dataOf(experiment, base);
    this.#clearTrained();
    this.#send({ type: "samples", samples: data.samples });
    const prompts = data.samples.map(({ prompt }) => prompt);
    this.#activate(null);
    const before = await complete(base, prompts);
    this.#send({ type: "completions", run: null, phase: "before", texts: before });
    for (const choice of experiment.runs) {
      const run = Run.create(choice, base, experiment.seed);
      run.prepare(choice, experiment, data);
      this.#runs.set(run.id, run);
    }
    const gate = (this.#gate = new Gate());
    this.#send({ type: "state", state: "training" });
    try {
      const finished = await this.#loop(experiment, data, gate);
      for (const run of this.#trained()) await this.#look(run, data.samples, "after");
      this.#send({ type: "state", state: finished ? "done" : "stopped" });
    } finally {
      for (const run of this.#trained()) await run.end();
      this.#gate = null;
      gate.finished();
    }
  }

  /** Takes the adapters of the last training off the model; those that were loaded stay. */
  #clearTrained(): void {
    for (const run of this.#trained()) {
      run.adapter.detach();
      this.#runs.delete(run.id);
    }
  }

  #trained(): Run[] {
    return [...this.#runs.values()].filter(({ id }) => id < FIRST_LOADED);
  }

  async #loop({ steps }: Experiment, data: ReturnType<typeof dataOf>, gate: Gate): Promise<boolean> {
    const every = Math.max(1, Math.ceil(steps / (LOOKS + 1)));
    for (let step = 0; step < steps; step++) {
      for (const run of this.#trained()) {
        if (!(await gate.pass())) return false;
        this.#activate(run);
        if (step % GRADIENTS_EVERY === 0)
          this.#send({ type: "gradients", run: run.id, norms: await run.gradientNorms(step) });
        const report = await run.step();
        if (report === null) continue;
        const { loss, tokensPerSecond } = report;
        const memory = this.#device!.memory().liveBytes;
        this.#send({ type: "step", run: run.id, step: step + 1, steps, loss, tokensPerSecond, memory });
        if ((step + 1) % every === 0 && step + 1 < steps) await this.#look(run, data.samples, "during");
      }
    }
    return true;
  }

  async #look(
    run: Run,
    samples: ReturnType<typeof dataOf>["samples"],
    phase: "during" | "after",
  ): Promise<void> {
    this.#activate(run);
    this.#send({ type: "completions", run: run.id, phase, texts: await run.complete(samples) });
  }

  /** Lets one adapter alone take part; null: none. */
  #activate(run: Run | null): void {
    adaptersOf(this.#base!.model).setActive(...(run === null ? [] : [run.adapter.name]));
  }

  async #complete(id: number | null, prompt: string): Promise<void> {
    const run = id === null ? null : (this.#runs.get(id) ?? null);
    const work = async (): Promise<void> => {
      this.#activate(run);
      const answer = await tryPrompt(this.#base!, prompt);
      this.#send({ type: "completed", run: id, ...answer }, [answer.logits.buffer as ArrayBuffer]);
    };
    await (this.#gate === null ? work() : this.#gate.borrow(work));
  }

  async #showTensor(id: number | null, path: string): Promise<void> {
    const parameter =
      id === null
        ? this.#base!.model.stateDict().get(path)
        : this.#runs.get(id)?.adapter.stateDict().get(path);
    if (parameter === undefined) throw new Error(`there is no tensor ${path} yet; start the training first`);
    const picture = shrink(parameter.shape, Float32Array.from(await parameter.data()));
    this.#send({ type: "tensor", path, ...picture }, [picture.values.buffer as ArrayBuffer]);
  }

  async #download({ run: id, format }: Extract<Request, { type: "download" }>): Promise<void> {
    const run = this.#runs.get(id);
    if (run === undefined) throw new Error("this method has not been trained yet");
    const zip = await adapterZip(run.adapter, format);
    this.#send({ type: "files", name: `${run.adapter.method.name}-${format}.zip`, zip }, [
      zip.buffer as ArrayBuffer,
    ]);
  }

  async #endTraining(): Promise<void> {
    await this.#gate?.end();
  }
}

/** Between two steps the training passes here: it can be held up, ended, and others can use the model meanwhile. */
class Gate {
  #held: { promise: Promise<void>; resolve: () => void } | null = null;
  #ending = false;
  #guests: (() => Promise<void>)[] = [];
  readonly #finished = deferred();

  /** Waits while the gate is closed; false: the training shall end. */
  async pass(): Promise<boolean> {
    while (!this.#ending) {
      const guest = this.#guests.shift();
      if (guest) await guest();
      else if (this.#held) await this.#held.promise;
      else break;
    }
    return !this.#ending;
  }

  close(): void {
    this.#held ??= deferred();
  }

  open(): void {
    this.#held?.resolve();
    this.#held = null;
  }

  end(): Promise<void> {
    this.#ending = true;
    this.open();
    return this.#finished.promise;
  }

  finished(): void {
    this.#finished.resolve();
  }

  /** Runs `work` between two steps. */
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

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}
