/** The page of the lessons: their text and code, and their output when they run here. */
import { byId, el, isOff, switchButton } from "../page/dom.ts";
import type { LessonReply } from "./report.ts";

/** A lesson as the build writes it to lessons/index.json. */
interface Lesson {
  readonly id: string;
  readonly title: string;
  readonly paragraphs: readonly string[];
  readonly code: string;
}

let worker: Worker | null = null;

function show(lesson: Lesson): void {
  stop();
  document.title = `${lesson.title} · Tied-LoRA lessons`;
  const output = el("pre", {
    id: "output",
    role: "log",
    tabindex: 0,
    "aria-label": "what the lesson prints",
  });
  const run = el("button", { type: "button", id: "run", class: "primary" }, "Run this lesson");
  run.addEventListener("click", () => {
    if (!isOff(run)) start(lesson, run, output);
  });
  byId("lesson").replaceChildren(
    el("h2", {}, lesson.title),
    ...lesson.paragraphs.map((text) => el("p", {}, text)),
    el("div", { class: "buttons" }, run),
    output,
    el("pre", { class: "code", tabindex: 0, "aria-label": "the lesson's code" }, el("code", {}, lesson.code)),
  );
  for (const link of byId("list").querySelectorAll("a"))
    link.ariaCurrent = link.hash === `#${lesson.id}` ? "page" : null;
}

function start({ id }: Lesson, run: HTMLButtonElement, output: HTMLElement): void {
  stop();
  switchButton(run, false);
  output.replaceChildren();
  output.dataset["state"] = "running";
  const end = (state: string, line: string): void => {
    output.append(line);
    output.dataset["state"] = state;
    switchButton(run, true);
    stop();
  };
  worker = new Worker(new URL(`lessons/${id}.js`, location.href), { type: "module" });
  worker.addEventListener("message", ({ data }: MessageEvent<LessonReply>) => {
    if (data.type === "line") output.append(`${data.text}\n`);
    else if (data.type === "done") end("done", "— the end —");
    else end("failed", `the lesson stopped: ${data.text}`);
  });
  worker.addEventListener("error", ({ message }) => end("failed", `the lesson stopped: ${message}`));
}

function stop(): void {
  worker?.terminate();
  worker = null;
}

const answer = await fetch(new URL("lessons/index.json", location.href));
const lessons = (await answer.json()) as Lesson[];
byId("list").replaceChildren(
  ...lessons.map(({ id, title }) => el("li", {}, el("a", { href: `#${id}` }, title))),
);
const chosen = (): Lesson => lessons.find(({ id }) => `#${id}` === location.hash) ?? lessons[0]!;
addEventListener("hashchange", () => show(chosen()));
show(chosen());
