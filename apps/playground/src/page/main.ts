/** The page: wires the form, the cards and the drawings to the worker that trains. */
import { countParameters } from "tiedlora";
import { labelOf, methodOf } from "../method.ts";
import type { BackendChoice, BaseInfo, Reply, Request, RunChoice } from "../protocol.ts";
import { Answers } from "./answers.ts";
import { LossChart } from "./chart.ts";
import { byId, bytes, count, el } from "./dom.ts";
import { MethodCards } from "./methods.ts";
import { Network } from "./network.ts";
import { Numbers } from "./numbers.ts";
import { showPicture } from "./picture.ts";
import { Settings } from "./settings.ts";

const worker = new Worker(new URL("worker.js", location.href), { type: "module" });
const ask = (request: Request): void => worker.postMessage(request);

let base: BaseInfo | null = null;
/** What is being trained, or was trained last. */
let running: readonly RunChoice[] = [];
let paused = false;
let chart: LossChart | null = null;
let network: Network | null = null;
let pickedBackend: BackendChoice = "gpu" in navigator ? "webgpu" : "cpu";

const answers = new Answers();
const numbers = new Numbers((run, format) => ask({ type: "download", run, format }));
const settings = new Settings(pickedBackend, (backend) => open(backend));
const cards = new MethodCards(() => {
  drawNetwork();
  showState(state);
});
let state: Extract<Reply, { type: "state" }>["state"] = "idle";

function open(backend: BackendChoice): void {
  pickedBackend = backend;
  base = null;
  byId("base").textContent = "Loading the base model …";
  showState("idle");
  ask({ type: "open", backend });
}

/** The method that is drawn: the one chosen above the drawing, else the first. */
function drawnMethod(): RunChoice | undefined {
  const list = byId("network-run", HTMLSelectElement);
  return cards.choices.find(({ id }) => String(id) === list.value) ?? cards.choices[0];
}

function drawNetwork(): void {
  const shown = drawnMethod();
  const list = byId("network-run", HTMLSelectElement);
  list.replaceChildren(
    ...cards.choices.map(({ id, method }) =>
      el("option", { value: id, selected: id === shown?.id }, labelOf(method)),
    ),
  );
  if (!base || !shown || shown.method.trained.length === 0) return;
  network = new Network(
    byId("network"),
    base,
    methodOf(shown.method),
    `var(--run-${cards.choices.indexOf(shown)})`,
    {
      chosen: (path, ofBase) => {
        ask({ type: "tensor", run: ofBase ? null : shown.id, path });
      },
    },
  );
}

function start(): void {
  hideProblem();
  running = [...cards.choices];
  chart = new LossChart(
    byId("chart"),
    running.map(({ method }) => labelOf(method)),
  );
  numbers.start(running, ({ method }) => countParameters(base!.linears, methodOf(method)).trainable);
  listRuns();
  showState("training");
  ask({ type: "start", experiment: { ...settings.values, runs: running } });
}

const STATUS = {
  idle: "",
  training: "training …",
  paused: "paused",
  done: "done: compare what it says now with before",
  stopped: "stopped",
} as const;

function showState(next: typeof state): void {
  state = next;
  const busy = state === "training" || state === "paused";
  paused = state === "paused";
  byId("train", HTMLButtonElement).disabled = busy || base === null || !cards.valid;
  byId("pause", HTMLButtonElement).disabled = !busy;
  byId("pause").textContent = paused ? "Resume" : "Pause";
  byId("stop", HTMLButtonElement).disabled = !busy;
  byId("status").textContent = STATUS[state];
  document.body.dataset["state"] = base === null ? "loading" : state;
}

function showProblem(title: string, message: string): void {
  const problem = byId("problem");
  problem.replaceChildren(el("h2", {}, title), el("p", {}, message));
  problem.hidden = false;
}

function hideProblem(): void {
  byId("problem").hidden = true;
}

function ready({ base: info, adapter, backend }: Extract<Reply, { type: "ready" }>): void {
  base = info;
  const where = backend === "webgpu" ? `WebGPU on ${adapter}` : `WebAssembly, ${adapter}`;
  byId("base").textContent =
    `${info.name}: ${count(info.parameters)} parameters, ${info.layers} layers, width ${info.hidden}. It runs on ${where}.`;
  cards.setBase(info);
  numbers.start([], () => 0);
  listRuns();
  byId("try-button", HTMLButtonElement).disabled = false;
  drawNetwork();
}

function receive(reply: Reply): void {
  switch (reply.type) {
    case "ready":
      return ready(reply);
    case "state":
      if (reply.state === "done" || reply.state === "stopped") numbers.finish();
      return showState(reply.state);
    case "samples":
      return answers.show(
        reply.samples,
        running.map(({ id, method }) => ({ id, label: labelOf(method) })),
      );
    case "completions":
      return answers.set(reply.run, reply.phase, reply.texts);
    case "step":
      chart?.add(
        running.findIndex(({ id }) => id === reply.run),
        reply.step,
        reply.loss,
      );
      return numbers.step(reply);
    case "gradients":
      if (reply.run === drawnMethod()?.id) network?.showGradients(reply.norms);
      return;
    case "tensor":
      return showPicture(reply);
    case "adapterLoaded":
      numbers.addLoaded(reply.run, reply.method, reply.trainable);
      listRuns();
      byId("status").textContent = `loaded: ${reply.method}, ${count(reply.trainable)} parameters`;
      return;
    case "completed":
      return showTried(reply);
    case "files":
      return download(reply.name, reply.zip);
    case "problem":
      showProblem(reply.title, reply.message);
      if (reply.fatal) byId("base").textContent = "The model is not loaded.";
      // without a GPU the page goes on with WebAssembly
      if (base === null && pickedBackend === "webgpu") {
        settings.showBackend("cpu");
        open("cpu");
      }
  }
}

function showTried({ text, next }: Extract<Reply, { type: "completed" }>): void {
  const likely = next.map(
    ({ token, probability }) => `${JSON.stringify(token)} ${(100 * probability).toFixed(0)} %`,
  );
  byId("tried").replaceChildren(
    el("span", {}, text === "" ? "(nothing)" : text),
    el("span", { class: "likely" }, `likely next: ${likely.join(" · ")}`),
  );
}

function download(name: string, zip: Uint8Array): void {
  const url = URL.createObjectURL(new Blob([zip as Uint8Array<ArrayBuffer>], { type: "application/zip" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  byId("status").textContent = `downloaded ${name}, ${bytes(zip.byteLength)}`;
}

/** The prompt of the visitor's own: answered by the base model, or with one of the adapters. */
function listRuns(): void {
  const list = byId("try-run", HTMLSelectElement);
  const { value } = list;
  const options = [
    el("option", { value: "base" }, "the base model"),
    ...numbers.names().map(([id, name]) => el("option", { value: id }, name)),
  ];
  list.replaceChildren(...options);
  if (options.some((option) => option.value === value)) list.value = value;
}

byId("try").addEventListener("submit", (event) => {
  event.preventDefault();
  const { value } = byId("try-run", HTMLSelectElement);
  byId("tried").textContent = "…";
  ask({
    type: "complete",
    run: value === "base" ? null : Number(value),
    prompt: byId("try-prompt", HTMLInputElement).value,
  });
});

function pick(id: string, type: "loadModel" | "loadAdapter"): void {
  const input = byId(id, HTMLInputElement);
  input.addEventListener("change", () => {
    hideProblem();
    if (input.files?.length) ask({ type, files: [...input.files] });
  });
}

worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => receive(data));
worker.addEventListener("error", ({ message }) =>
  showProblem("The worker stopped", `${message} Reload the page.`),
);
byId("train").addEventListener("click", start);
byId("pause").addEventListener("click", () => ask({ type: paused ? "resume" : "pause" }));
byId("stop").addEventListener("click", () => ask({ type: "stop" }));
byId("network-run").addEventListener("change", drawNetwork);
pick("model-files", "loadModel");
pick("adapter-files", "loadAdapter");
open(pickedBackend);
