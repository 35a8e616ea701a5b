/** The page: wires the form, the cards and the drawings to the worker that trains. */
import { countParameters } from "tiedlora";
import { labelsOf, methodOf } from "../method.ts";
import type { BackendWish, BaseInfo, Reply, Request, RunChoice } from "../protocol.ts";
import { Answers } from "./answers.ts";
import { LossChart } from "./chart.ts";
import { byId, bytes, count, el, isOff, switchButton } from "./dom.ts";
import { Drawings } from "./drawings.ts";
import { HubForm } from "./hub.ts";
import { MethodCards } from "./methods.ts";
import { Numbers } from "./numbers.ts";
import { showPicture } from "./picture.ts";
import type { Problem } from "./fields.ts";
import { hideProblem, showProblem } from "./problem.ts";
import { Settings } from "./settings.ts";

type State = Extract<Reply, { type: "state" }>["state"];

const worker = new Worker(new URL("worker.js", location.href), { type: "module" });
const ask = (request: Request): void => worker.postMessage(request);

let base: BaseInfo | null = null;
let state: State = "idle";
/** Whether Stop has been pressed and the worker has not answered yet. */
let stopping = false;
/** The runs that are being trained, or were trained last. */
let running: readonly RunChoice[] = [];
/** The names of the adapters from files, by number. */
const loaded = new Map<number, string>();
/** The name of every run that can answer, by number. */
let names: ReadonlyMap<number, string> = new Map();
/** The name of the part that was chosen last in the drawing. */
let chosenName = "";
let chart: LossChart | null = null;

const [trainButton, pauseButton, stopButton] = ["train", "pause", "stop"].map((id) =>
  byId(id, HTMLButtonElement),
) as [HTMLButtonElement, HTMLButtonElement, HTMLButtonElement];
const say = (text: string): void => void (byId("status").textContent = text);

const answers = new Answers();
const drawings = new Drawings({
  chosen: (run, path, name) => {
    chosenName = name;
    ask({ type: "tensor", run, path });
  },
  untrained: (label) => say(`${label} has no values yet: they are there once its training has begun`),
});
const numbers = new Numbers({
  download: (run, format) => ask({ type: "download", run, format }),
  unload: (run) => {
    loaded.delete(run);
    answers.remove(run);
    drawings.removeLoaded(run);
    listRuns();
    ask({ type: "unload", run });
  },
});
const settings = new Settings(open);
const hub = new HubForm((request) => {
  hideProblem();
  ask(request);
});
const cards = new MethodCards((card) => drawings.setCards(cards.choices, card));

function open(backend: BackendWish): void {
  hideProblem();
  base = null;
  byId("base").textContent = "Loading the base model …";
  showState("idle");
  ask({ type: "open", backend });
}

const problems = (): Problem[] => [...settings.problems, ...cards.problems];
/** Whether the status line says why the training did not start. */
let refused = false;

function train(): void {
  if (isOff(trainButton)) return;
  const [first, ...more] = problems();
  refused = first !== undefined;
  if (first !== undefined) {
    say(`Not started. ${first.text}${more.length > 0 ? ` (and ${more.length} more)` : ""}`);
    return first.focus();
  }
  hideProblem();
  running = [...cards.choices];
  const labels = labelsOf(running);
  chart?.close();
  chart = new LossChart(
    byId("chart"),
    running.map(({ id }) => ({ label: labels.get(id)!, colour: id })),
  );
  const entries = running.map(({ id, method }) => ({
    id,
    label: labels.get(id)!,
    trainable: countParameters(base!.linears, methodOf(method)).trainable,
  }));
  numbers.start(entries);
  drawings.start(running, labels);
  listRuns();
  showState("training");
  ask({ type: "start", experiment: { ...settings.values, runs: running } });
}

const STATUS: Readonly<Record<State, string>> = {
  idle: "",
  training: "training …",
  paused: "paused",
  done: "done: compare what it says now with before",
  stopped: "stopped",
};

const HUB_ENDED: Readonly<Record<Extract<Reply, { type: "hubEnded" }>["how"], string>> = {
  loaded: "loaded: it is the base model now",
  canceled: "canceled: what has been loaded is kept, and the next time goes on there",
  failed: "not loaded",
};

function showState(next: State): void {
  state = next;
  const busy = state === "training" || state === "paused";
  switchButton(trainButton, !busy && base !== null);
  switchButton(pauseButton, busy);
  switchButton(stopButton, busy);
  const verb = state === "paused" ? "Resume" : "Pause";
  pauseButton.textContent = verb;
  pauseButton.setAttribute("aria-label", `${verb} the training`);
  say(STATUS[state]);
  document.body.dataset["state"] = base === null ? "loading" : state;
}

/** The page reacts at once, the worker before its next step. */
function stop(): void {
  if (isOff(stopButton)) return;
  switchButton(stopButton, false);
  switchButton(pauseButton, false);
  stopping = true;
  say("stopping …");
  ask({ type: "stop" });
}

function pause(): void {
  if (isOff(pauseButton)) return;
  const resume = state === "paused";
  say(resume ? "going on …" : "pausing …");
  ask({ type: resume ? "resume" : "pause" });
}

function ready({ base: info, backend, where, why }: Extract<Reply, { type: "ready" }>): void {
  base = info;
  const device = backend === "webgpu" ? `WebGPU, ${where}` : `WebAssembly, ${where}`;
  byId("base").textContent =
    `${info.name}: ${count(info.parameters)} parameters, ${info.layers} layers, width ${info.hidden}. It runs on ${device} (${why}).`;
  settings.showBackend(backend);
  cards.setBase(info);
  running = [];
  loaded.clear();
  numbers.clear();
  answers.clear();
  chart?.close();
  chart = null;
  drawings.setBase(info);
  listRuns();
  switchButton(byId("try-button", HTMLButtonElement), true);
}

function receive(reply: Reply): void {
  switch (reply.type) {
    case "ready":
      return ready(reply);
    case "state":
      return receiveState(reply.state);
    case "hubProgress":
      return hub.progress(reply);
    case "hubNote":
      return hub.note(reply.text);
    case "hubEnded":
      return hub.end(HUB_ENDED[reply.how]);
    case "samples":
      drawings.begun();
      return answers.show(reply.samples, [
        ...running.map(({ id }) => ({ id, label: names.get(id)!, colour: id })),
        ...[...loaded].map(([id, label]) => ({ id, label, colour: "loaded" as const })),
      ]);
    case "completions":
      return answers.set(reply.run, reply.phase, reply.texts);
    case "said":
      return answers.finish();
    case "step":
      chart?.add(reply.run, reply.step, reply.loss);
      return numbers.step(reply);
    case "measured":
      return numbers.measured(reply.run, reply.loss);
    case "gradients":
      return drawings.showGradients(reply.run, reply.norms);
    case "tensor":
      return showPicture(reply, chosenName);
    case "adapterLoaded":
      return addLoaded(reply);
    case "completed":
      return showTried(reply);
    case "files":
      return download(reply.name, reply.zip);
    case "problem":
      if (reply.fatal || base === null) byId("base").textContent = "The model is not loaded.";
      if (byId("tried").textContent === "…") byId("tried").textContent = "";
      return showProblem(reply.title, reply.message);
  }
}

function receiveState(next: State): void {
  const busy = next === "training" || next === "paused";
  if (stopping && busy) return; // the worker sent this before it received the stop
  stopping = false;
  if (next === "done" || next === "stopped") numbers.finish();
  showState(next);
}

function addLoaded({ run, label, trainable, plan }: Extract<Reply, { type: "adapterLoaded" }>): void {
  const alike = [...loaded.values()].filter((other) => other.replace(/ \(\d+\)$/, "") === label).length;
  const name = alike === 0 ? label : `${label} (${alike + 1})`;
  loaded.set(run, name);
  numbers.addLoaded({ id: run, label: name, trainable });
  drawings.addLoaded(run, name, plan);
  answers.add({ id: run, label: name, colour: "loaded" });
  listRuns();
  say(`loaded: ${name}, ${count(trainable)} parameters. It stays, to be compared with what is trained.`);
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
  say(`downloaded ${name}, ${bytes(zip.byteLength)}`);
}

/** Lists the models that can complete a prompt: the base model, trained runs, and adapters from files. */
function listRuns(): void {
  names = new Map([...labelsOf(running), ...loaded]);
  const list = byId("try-run", HTMLSelectElement);
  const { value } = list;
  const options = [
    el("option", { value: "base" }, "the base model"),
    ...[...names].map(([id, name]) => el("option", { value: id }, name)),
  ];
  list.replaceChildren(...options);
  if (options.some((option) => option.value === value)) list.value = value;
}

byId("try").addEventListener("submit", (event) => {
  event.preventDefault();
  if (isOff(byId("try-button", HTMLButtonElement))) return;
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
    input.value = ""; // so that choosing the same files again fires an event
  });
}

worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => receive(data));
worker.addEventListener("error", ({ message }) =>
  showProblem("The worker stopped", `${message} Reload the page.`),
);
trainButton.addEventListener("click", train);
for (const id of ["settings", "methods"])
  byId(id).addEventListener("input", () => {
    if (!refused || problems().length > 0) return;
    refused = false;
    say("all is set: it can be trained");
  });
pauseButton.addEventListener("click", pause);
stopButton.addEventListener("click", stop);
pick("model-files", "loadModel");
pick("adapter-files", "loadAdapter");
drawings.setCards(cards.choices, null);
open("auto");
