/** The form of what all methods share: task, backend, steps, batch, seed. */
import { GYM_TASK_NAMES, GYM_TASKS } from "tiedlora/gym";
import type { BackendChoice, Experiment } from "../protocol.ts";
import { byId, choice, el, numeric } from "./dom.ts";

const HINT = "A line is an example: question => answer. Or any text, a sentence a line.";

export class Settings {
  #values: Omit<Experiment, "runs"> = { task: "translation", text: "", steps: 60, batch: 8, seed: 0 };
  readonly #backend: HTMLLabelElement;

  /** `reopen` is called when another backend is chosen. */
  constructor(backend: BackendChoice, reopen: (backend: BackendChoice) => void) {
    const backends = { webgpu: "WebGPU", cpu: "WebAssembly" };
    this.#backend = choice("runs on", backends, backend, (value) => reopen(value as BackendChoice));
    const tasks = Object.fromEntries(
      GYM_TASK_NAMES.map((name) => [name, `${name}: ${GYM_TASKS[name].title}`]),
    );
    const text = el("textarea", { "aria-label": "training text", placeholder: HINT });
    text.addEventListener("input", () => this.#set({ text: text.value }));
    const own = el(
      "div",
      { class: "wide", hidden: true },
      el("label", {}, "your text", text),
      el("p", { class: "hint" }, HINT),
    );
    const task = choice("task", { ...tasks, text: "my own text" }, this.#values.task, (name) => {
      this.#set({ task: name });
      own.hidden = name !== "text";
    });
    task.className = "wide";
    byId("settings").replaceChildren(
      task,
      own,
      this.#backend,
      numeric("steps", this.#values.steps, { min: 1, max: 5000, step: 1 }, (steps) => this.#set({ steps })),
      numeric("batch", this.#values.batch, { min: 1, max: 64, step: 1 }, (batch) => this.#set({ batch })),
      numeric("seed", this.#values.seed, { min: 0, max: 1e9, step: 1 }, (seed) => this.#set({ seed })),
    );
    byId("settings").addEventListener("submit", (event) => event.preventDefault());
  }

  get values(): Omit<Experiment, "runs"> {
    return this.#values;
  }

  /** The page has changed the backend by itself. */
  showBackend(backend: BackendChoice): void {
    this.#backend.querySelector("select")!.value = backend;
  }

  #set(part: Partial<Experiment>): void {
    this.#values = { ...this.#values, ...part };
  }
}
