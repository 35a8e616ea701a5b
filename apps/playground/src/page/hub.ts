/** The form that loads a model by its name on a hub: what to load, how far it is, and canceling it. */
import type { Reply, Request } from "../protocol.ts";
import { byId, bytes, isOff, switchButton } from "./dom.ts";

type Progress = Extract<Reply, { type: "hubProgress" }>;

const input = (name: string): HTMLInputElement => byId(`hub-${name}`, HTMLInputElement);

export class HubForm {
  readonly #load = byId("hub-load", HTMLButtonElement);
  readonly #cancel = byId("hub-cancel", HTMLButtonElement);
  readonly #delete = byId("hub-delete", HTMLButtonElement);
  readonly #bar = byId("hub-progress", HTMLProgressElement);
  readonly #ask: (request: Request) => void;

  /** `ask` is called for what the visitor wants of the worker. */
  constructor(ask: (request: Request) => void) {
    this.#ask = ask;
    byId("hub").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    this.#cancel.addEventListener("click", () => {
      if (isOff(this.#cancel)) return;
      switchButton(this.#cancel, false);
      this.#say("canceling …");
      ask({ type: "cancelHub" });
    });
    this.#delete.addEventListener("click", () => {
      if (isOff(this.#delete) || !this.#isNamed()) return;
      ask({ type: "forgetHub", model: this.#model });
    });
  }

  progress({ file, index, files, loaded, size }: Progress): void {
    if (isOff(this.#cancel)) return; // sent before the worker received the cancellation
    this.#say(`loading ${file}, ${index} of ${files}`);
    this.#bar.hidden = false;
    this.#bar.value = size === 0 ? 1 : loaded / size;
    byId("hub-bytes").textContent = `${bytes(loaded)} of ${bytes(size)}`;
  }

  /** Shows that nothing is being loaded any more, and why. */
  end(text: string): void {
    this.#switch(false);
    this.#say(text);
  }

  note(text: string): void {
    this.#say(text);
  }

  /** "owner/name", with the revision if one is given. */
  get #model(): string {
    const revision = input("revision").value.trim();
    return input("name").value.trim() + (revision === "" ? "" : `@${revision}`);
  }

  #start(): void {
    if (isOff(this.#load) || !this.#isNamed()) return;
    this.#switch(true);
    this.#say("asking the hub …");
    this.#ask({
      type: "loadFromHub",
      model: this.#model,
      token: input("token").value.trim(),
      endpoint: input("endpoint").value.trim(),
    });
  }

  /** Marks the field and focuses it if it is empty. */
  #isNamed(): boolean {
    const named = input("name").value.trim() !== "";
    input("name").setAttribute("aria-invalid", String(!named));
    if (named) return true;
    this.#say("the name of a model is needed: owner/name");
    input("name").focus();
    return false;
  }

  #switch(loading: boolean): void {
    switchButton(this.#load, !loading);
    switchButton(this.#delete, !loading);
    switchButton(this.#cancel, loading);
    this.#bar.hidden = true;
    this.#bar.value = 0;
    byId("hub-bytes").textContent = "";
  }

  #say(text: string): void {
    const status = byId("hub-status");
    if (status.textContent !== text) status.textContent = text; // it is read out once
  }
}
