/** The error message at the top of the page: it is announced, scrolled into view, and focused until it is dismissed. */
import { byId, el } from "./dom.ts";

let before: Element | null = null;

export function showProblem(title: string, message: string): void {
  const problem = byId("problem");
  if (problem.hidden) before = document.activeElement;
  const close = el("button", { type: "button" }, "Put this message away");
  close.addEventListener("click", () => {
    hideProblem();
    if (before instanceof HTMLElement || before instanceof SVGElement) before.focus();
  });
  for (const dialog of document.querySelectorAll("dialog")) dialog.close(); // a dialog would cover the message
  problem.replaceChildren(el("h2", {}, title), el("p", {}, message), close);
  problem.hidden = false;
  problem.scrollIntoView({ block: "start" });
  problem.focus({ preventScroll: true });
}

export function hideProblem(): void {
  byId("problem").hidden = true;
}
