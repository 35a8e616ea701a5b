/** The laboratory: a device, a base model, and its adapters: up to four that are trained in turn, and any number from files. */
import type { Device } from "@tiedlora/core";
import { linearSpecs, loadPretrainedFrom, type Pretrained } from "@tiedlora/models";
import { type Adapter, adaptersOf, loadAdapterFiles, readProvenance } from "tiedlora";
import { presetName } from "../method.ts";
import { drawnPlan } from "../plan.ts";
import type { BackendWish, BaseInfo, Experiment, Reply, Request } from "../protocol.ts";
import { type Data, dataOf } from "./data.ts";
import { adapterZip, archiveOf, folderOf, nameOf, pickedFiles, servedFiles } from "./files.ts";
import { Gate } from "./gate.ts";
import { HubLoader, type HubRequest } from "./hub.ts";
import { type Opened, openDevice } from "./open.ts";
import { complete, Run, tryPrompt } from "./run.ts";
import { shrink } from "./shrink.ts";

const GRADIENTS_EVERY = 5;
/** How many times completions are shown during a training. */
const LOOKS = 4;
/** Adapters from files are numbered from here; the page's own methods have smaller numbers. */
const FIRST_LOADED = 100;

type Files = Parameters<typeof loadPretrainedFrom>[0];

/** An adapter that outlives its model, in the form of its files. */
interface Kept {
  readonly label: string;
  readonly files: Files;
}

export class Lab {
  readonly #send: (reply: Reply, transfer?: Transferable[]) => void;
  readonly #baseUrl: URL;
  readonly #hub: HubLoader;
  #opened: Opened | null = null;
  #base: Pretrained | null = null;
  #baseName = "";
  #runs = new Map<number, Run>();
  /** The gate of the current training. */
  #gate: Gate | null = null;
  /** The data of the last training. */
  #data: Data | null = null;
  #nextLoaded = FIRST_LOADED;
  /** Settles when the model is no longer in use. */
  #free: Promise<unknown> = Promise.resolve();

  constructor(send: (reply: Reply, transfer?: Transferable[]) => void, baseUrl: URL) {
    this.#send = send;
    this.#baseUrl = baseUrl;
    this.#hub = new HubLoader(send);
  }

  /** Answers a request. Rejects if that fails. */
  async answer(request: Request): Promise<void> {
    switch (request.type) {
      case "open":
        return this.#instead(() => this.#open(request.backend));
      case "loadModel":
        return this.#instead(() => this.#loadModel(request.files));
      case "loadFromHub":
        return this.#loadFromHub(request);
      case "cancelHub":
        return this.#hub.cancel();
      case "forgetHub":
        return this.#hub.forget(request.model);
      case "start":
        return this.#train(request.experiment);
      case "pause":
        if (this.#gate === null || this.#gate.stopped) return;
        this.#gate.close();
        return this.#send({ type: "state", state: "paused" });
      case "resume":
        if (this.#gate === null || this.#gate.stopped) return;
        this.#gate.open();
        return this.#send({ type: "state", state: "training" });
      case "stop":
        return this.#gate?.stop();
      case "loadAdapter":
        return this.#between(() => this.#loadAdapter(request.files));
      case "unload":
        return this.#between(() => this.#unload(request.run));
      case "tensor":
        return this.#showTensor(request.run, request.path);
      case "complete":
        return this.#between(() => this.#complete(request.run, request.prompt));
      case "download":
        return this.#download(request);
    }
  }

  /** Runs `work` when all earlier work is done. */
  #alone(work: () => Promise<void>): Promise<void> {
    const done = this.#free.then(work);
    this.#free = done.catch(() => undefined);
    return done;
  }

  /** Ends the current training, if there is one, then runs `work`. */
  async #instead(work: () => Promise<void>): Promise<void> {
    await this.#gate?.abandon();
    return this.#alone(work);
  }

  /** Runs `work`; during a training, between two of its steps, after which the same adapters are active again as before. */
  #between(work: () => Promise<void>): Promise<void> {
    if (this.#gate === null) return this.#alone(work);
    return this.#gate.borrow(async () => {
      const adapters = adaptersOf(this.#base!.model);
      const before = adapters.active;
      try {
        await work();
      } finally {
        adapters.setActive(...before.filter((name) => adapters.has(name)));
      }
    });
  }

  async #open(wish: BackendWish): Promise<void> {
    const kept = this.#base === null ? [] : await this.#keep().catch(() => []); // the adapters on a lost device are gone
    this.#opened?.device.close();
    this.#opened = null;
    this.#base = null;
    this.#opened = await openDevice(wish);
    await this.#use(servedFiles(this.#baseUrl, "base"), "The project's base model", kept);
  }

  async #loadModel(files: readonly File[]): Promise<void> {
    await this.#use(await pickedFiles(files), folderOf(files), await this.#keep());
  }

  /** Trains on meanwhile: only the model that has been loaded takes the place of the one before. */
  async #loadFromHub(request: HubRequest): Promise<void> {
    let how: "loaded" | "canceled" | "failed" = "failed";
    try {
      const files = await this.#hub.files(request);
      how = files === null ? "canceled" : how;
      if (files === null) return;
      await this.#instead(async () => this.#use(files, request.model, await this.#keep()));
      how = "loaded";
    } finally {
      this.#send({ type: "hubEnded", how });
    }
  }

  async #keep(): Promise<Kept[]> {
    const kept: Kept[] = [];
    for (const { id, label, adapter } of this.#runs.values()) {
      const files = archiveOf(await adapterZip(adapter, "native"), label);
      kept.push({ label: id < FIRST_LOADED ? `${label}, trained earlier` : label, files });
    }
    return kept;
  }

  async #use(files: Files, name: string, kept: readonly Kept[]): Promise<void> {
    const base = await loadPretrainedFrom(files, { device: this.#device });
    this.#runs.clear();
    this.#data = null;
    this.#base = base;
    this.#baseName = name;
    const { backend, where, why } = this.#opened!;
    this.#send({ type: "ready", backend, where, why, base: this.#info() });
    const lost: string[] = [];
    for (const { label, files: saved } of kept)
      await this.#attach(saved, () => label).catch((error: unknown) =>
        lost.push(`${label}: ${String(error)}`),
      );
    this.#send({ type: "state", state: "idle" });
    if (lost.length > 0) {
      const title = "Adapters that do not fit this model were taken off";
      this.#send({ type: "problem", title, message: lost.join("; "), fatal: false });
    }
  }

  get #device(): Device {
    if (this.#opened === null) throw new Error("there is no device to compute on; reload the page");
    return this.#opened.device;
  }

  /** The model. Throws if none is loaded yet. */
  get #model(): Pretrained {
    if (this.#base === null) throw new Error("no model is loaded yet; wait until it is, or choose one");
    return this.#base;
  }

  #info(): BaseInfo {
    const { model } = this.#model;
    const { layers, hidden, vocab } = model.config;
    const linears = linearSpecs(model.config).map((one) => ({ path: one.path, in: one.in, out: one.out }));
    const parameters = model.parameters().reduce((sum, p) => sum + p.size, 0);
    return { name: this.#baseName, parameters, layers, hidden, vocab, linears };
  }

  async #loadAdapter(files: readonly File[]): Promise<void> {
    const picked = await pickedFiles(files);
    const run = await this.#attach(
      picked,
      ({ method }) => `${presetName(method.name)} · rank ${method.rank}, from ${nameOf(files)}`,
    );
    if (this.#data !== null) await this.#compare(run, this.#data);
  }

  /** Attaches an adapter from files, which stays inactive until it is used. */
  async #attach(files: Files, labelOf: (adapter: Adapter) => string): Promise<Run> {
    const base = this.#model;
    const id = this.#nextLoaded++;
    const adapter = await loadAdapterFiles(base.model, files, { name: `loaded ${id}`, active: false });
    const { quantize } = await readProvenance(files);
    const form =
      quantize === undefined ? "" : ` (trained on ${quantize} weights; here they are not quantized)`;
    const run = new Run(id, labelOf(adapter) + form, adapter, base);
    this.#runs.set(id, run);
    const { trainable } = adapter.count();
    this.#send({
      type: "adapterLoaded",
      run: id,
      label: run.label,
      trainable,
      plan: drawnPlan(adapter.plan),
    });
    return run;
  }

  #unload(id: number): Promise<void> {
    const run = this.#runs.get(id);
    if (run !== undefined && id >= FIRST_LOADED) {
      run.adapter.detach();
      this.#runs.delete(id);
    }
    return Promise.resolve();
  }

  /** Trains all runs of an experiment in turn, a step each, until all are done or the visitor stops it. */
  async #train(experiment: Experiment): Promise<void> {
    const previous = this.#gate;
    const gate = (this.#gate = new Gate()); // from here on the training can be stopped
    await previous?.abandon();
    await this.#alone(async () => {
      try {
        await this.#experiment(experiment, gate);
      } finally {
        for (const run of this.#trained()) await run.end();
        await gate.finish();
        if (this.#gate === gate) this.#gate = null;
      }
    });
  }

  async #experiment(experiment: Experiment, gate: Gate): Promise<void> {
    const base = this.#model;
    this.#clearTrained();
    const data = await dataOf(experiment, base, async () => {
      await gate.pass();
      return !gate.stopped;
    });
    if (data === null) return this.#send({ type: "state", state: "stopped" });
    this.#data = data;
    for (const choice of experiment.runs) {
      const run = await Run.create(choice, base, experiment.seed);
      run.prepare(choice, experiment, data);
      this.#runs.set(run.id, run);
    }
    this.#send({ type: "samples", samples: data.samples });
    const finished = (await this.#before(data, gate)) && (await this.#steps(experiment.steps, data, gate));
    if (!finished) this.#send({ type: "state", state: "stopped" });
    const wanted = (): boolean => !gate.abandoned;
    for (const run of this.#trained()) await this.#look(run, data, "after", gate, wanted);
    if (finished) this.#send({ type: "state", state: "done" });
    if (!gate.abandoned) this.#send({ type: "said" });
  }

  /** Shows completions of the base model and of adapters from files. False if the training was stopped. */
  async #before(data: Data, gate: Gate): Promise<boolean> {
    const wanted = (): boolean => !gate.stopped;
    if (!(await this.#look(null, data, "before", gate, wanted))) return false;
    for (const run of this.#runs.values()) await this.#compare(run, data, gate);
    return !gate.stopped;
  }

  async #steps(steps: number, data: Data, gate: Gate): Promise<boolean> {
    const every = Math.max(1, Math.ceil(steps / (LOOKS + 1)));
    for (let step = 0; step < steps; step++) {
      for (const run of this.#trained()) {
        await gate.pass();
        if (gate.stopped) return false;
        this.#activate(run);
        if (step % GRADIENTS_EVERY === 0)
          this.#send({ type: "gradients", run: run.id, norms: await run.gradientNorms(step) });
        await this.#step(run, steps);
        if ((step + 1) % every === 0 && step + 1 < steps)
          await this.#look(run, data, "during", gate, () => !gate.stopped);
      }
    }
    return true;
  }

  async #step(run: Run, steps: number): Promise<void> {
    const report = await run.step();
    if (report === null) return;
    const { step, loss, tokensPerSecond } = report;
    const memory = this.#device.memory().liveBytes;
    this.#send({ type: "step", run: run.id, step, steps, loss, tokensPerSecond, memory });
  }

  /** Detaches the adapters of the last training; adapters from files stay. */
  #clearTrained(): void {
    for (const run of this.#trained()) {
      run.adapter.detach();
      this.#runs.delete(run.id);
    }
  }

  #trained(): Run[] {
    return [...this.#runs.values()].filter(({ id }) => id < FIRST_LOADED);
  }

  /** Shows completions of the model with one adapter, or with none. False if they were no longer wanted. */
  async #look(
    run: Run | null,
    { samples }: Data,
    phase: "before" | "during" | "after",
    gate: Gate | null = null,
    wanted: () => boolean = () => true,
  ): Promise<boolean> {
    const between = async (): Promise<boolean> => {
      await gate?.pass();
      return wanted();
    };
    if (!(await between())) return false;
    this.#activate(run);
    const prompts = samples.map(({ prompt }) => prompt);
    const texts = await complete(this.#model, prompts, between);
    if (texts === null) return false;
    this.#send({ type: "completions", run: run?.id ?? null, phase, texts });
    return true;
  }

  /** Measures an adapter from files on the data of the training. */
  async #compare(run: Run, data: Data, gate: Gate | null = null): Promise<void> {
    if (run.id < FIRST_LOADED || gate?.stopped) return;
    this.#activate(run);
    this.#send({ type: "measured", run: run.id, loss: await run.loss(data.batch(0)) });
    await this.#look(run, data, "after", gate, () => !gate?.stopped);
  }

  /** Makes one adapter the only active one; with null, none is active. */
  #activate(run: Run | null): void {
    adaptersOf(this.#model.model).setActive(...(run === null ? [] : [run.adapter.name]));
  }

  async #complete(id: number | null, prompt: string): Promise<void> {
    const run = id === null ? null : this.#runOf(id);
    this.#activate(run);
    const answer = await tryPrompt(this.#model, prompt);
    this.#send({ type: "completed", run: id, ...answer }, [answer.logits.buffer as ArrayBuffer]);
  }

  async #showTensor(id: number | null, path: string): Promise<void> {
    const from = id === null ? this.#model.model : this.#runOf(id).adapter;
    const parameter = from.stateDict().get(path);
    if (parameter === undefined) throw new Error(`there is no tensor ${path}`);
    const picture = shrink(parameter.shape, Float32Array.from(await parameter.data()));
    this.#send({ type: "tensor", run: id, path, ...picture }, [picture.values.buffer as ArrayBuffer]);
  }

  async #download({ run: id, format }: Extract<Request, { type: "download" }>): Promise<void> {
    const { adapter } = this.#runOf(id);
    const zip = await adapterZip(adapter, format);
    this.#send({ type: "files", name: `${adapter.method.name}-${format}.zip`, zip }, [
      zip.buffer as ArrayBuffer,
    ]);
  }

  #runOf(id: number): Run {
    const run = this.#runs.get(id);
    if (run === undefined) throw new Error("this method has no values yet: start the training first");
    return run;
  }
}
