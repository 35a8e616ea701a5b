/** The form of the settings that all methods share: task, backend, steps, batch, seed. */
import { TOY_TASK_NAMES, TOY_TASKS } from "@tiedlora/experiments/toy-tasks";
import type { BackendChoice, Experiment } from "../protocol.ts";
import { byId, el } from "./dom.ts";
import { choice, NumberField, type Problem, type Range } from "./fields.ts";

const HINT = "A line is an example: question => answer. Or any text, a sentence a line.";
const NO_TEXT = "your text: paste some lines";

const NUMBERS = {
  steps: { min: 1, max: 5000, whole: true },
  batch: { min: 1, max: 64, whole: true },
  seed: { min: 0, max: 1e9, whole: true },
} as const satisfies Readonly<Record<string, Range>>;

export class Settings {
  #values: Omit<Experiment, "runs"> = { task: "translation", text: "", steps: 60, batch: 8, seed: 0 };
  readonly #backend: HTMLSelectElement;
  readonly #fields: readonly NumberField[];
  readonly #text: HTMLTextAreaElement;

  /** `reopen` is called when another backend is chosen. */
  constructor(reopen: (backend: BackendChoice) => void) {
    const backends = { webgpu: "WebGPU", cpu: "WebAssembly" };
    const backend = choice("backend", "runs on", backends, "cpu", (value) => reopen(value as BackendChoice));
    this.#backend = backend.list;
    const tasks = Object.fromEntries(
      TOY_TASK_NAMES.map((name) => [name, `${name}: ${TOY_TASKS[name].title}`]),
    );
    this.#text = el("textarea", { name: "text", placeholder: HINT });
    this.#text.addEventListener("input", () => {
      this.#text.setAttribute("aria-invalid", "false");
      this.#set({ text: this.#text.value });
    });
    const own = el(
      "div",
      { class: "wide", hidden: true },
      el("label", {}, "your text", this.#text),
      el("p", { class: "hint" }, HINT),
    );
    const task = choice("task", "task", { ...tasks, text: "my own text" }, this.#values.task, (name) => {
      this.#set({ task: name });
      own.hidden = name !== "text";
    });
    task.element.className = "wide";
    this.#fields = (["steps", "batch", "seed"] as const).map(
      (name) =>
        new NumberField(name, name, this.#values[name], NUMBERS[name], (value) =>
          this.#set({ [name]: value }),
        ),
    );
    byId("settings").replaceChildren(
      task.element,
      own,
      backend.element,
      ...this.#fields.map(({ element }) => element),
    );
    byId("settings").addEventListener("submit", (event) => event.preventDefault());
  }

  get values(): Omit<Experiment, "runs"> {
    return this.#values;
  }

  /** The reasons why a training cannot start. */
  get problems(): Problem[] {
    const wrong = this.#fields.flatMap(({ problem }) => problem ?? []);
    if (this.#values.task !== "text" || this.#values.text.trim() !== "") return wrong;
    const focus = (): void => {
      this.#text.setAttribute("aria-invalid", "true");
      this.#text.focus();
    };
    return [{ text: NO_TEXT, focus }, ...wrong];
  }

  showBackend(backend: BackendChoice): void {
    this.#backend.value = backend;
  }

  #set(part: Partial<Experiment>): void {
    this.#values = { ...this.#values, ...part };
  }
}
