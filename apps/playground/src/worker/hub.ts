/** Models by name: loads one from a hub into the storage of the page, tells how that goes, and can be canceled. */
import type { Files } from "@tiedlora/core";
import { type DownloadProgress, forgetModel, hubFiles } from "@tiedlora/models/hub";
import type { Reply, Request } from "../protocol.ts";

/** The pause between two reports on one file: more would only keep the page busy. */
const REPORT_MS = 100;

export type HubRequest = Extract<Request, { type: "loadFromHub" }>;

export class HubLoader {
  readonly #send: (reply: Reply) => void;
  #loading: AbortController | null = null;

  constructor(send: (reply: Reply) => void) {
    this.#send = send;
  }

  /** The files of a model; null if the visitor has canceled it. What was loaded until then is kept, and the next time goes on there. */
  async files({ model, token, endpoint }: HubRequest): Promise<Files | null> {
    if (this.#loading !== null) throw new Error("a model is being loaded already: cancel that first");
    const loading = (this.#loading = new AbortController());
    try {
      return await hubFiles(model, {
        endpoint,
        ...(token !== "" && { token }),
        signal: loading.signal,
        onProgress: this.#reporter(),
        onNote: (text) => this.#send({ type: "hubNote", text }),
      });
    } catch (error) {
      if (loading.signal.aborted) return null;
      throw error;
    } finally {
      this.#loading = null;
    }
  }

  cancel(): void {
    this.#loading?.abort();
  }

  /** Deletes what the storage keeps of a model. */
  async forget(model: string): Promise<void> {
    if (this.#loading !== null) throw new Error("a model is being loaded: cancel that first");
    await forgetModel(model);
    this.#send({ type: "hubNote", text: `nothing of ${model} is kept any more` });
  }

  #reporter(): (progress: DownloadProgress) => void {
    let file = "";
    let at = -Infinity;
    return (progress) => {
      const now = performance.now();
      if (progress.file === file && progress.loaded < progress.size && now < at + REPORT_MS) return;
      [file, at] = [progress.file, now];
      this.#send({ type: "hubProgress", ...progress });
    };
  }
}
