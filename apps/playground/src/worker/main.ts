/** The worker's entry: requests in, replies out. */
import type { Reply, Request } from "../protocol.ts";
import { explain } from "./explain.ts";
import { Lab } from "./lab.ts";

/** The part of a worker's global scope that is used; its types clash with those of a page. */
interface WorkerScope {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<Request>) => void): void;
  readonly location: Location;
}
const scope = globalThis as unknown as WorkerScope;

const send = (reply: Reply, transfer: Transferable[] = []): void => scope.postMessage(reply, transfer);
const lab = new Lab(send, new URL("base/", scope.location.href));

scope.addEventListener("message", ({ data }) => {
  lab.answer(data).catch((error: unknown) => {
    send(explain(error));
    if (data.type === "start" || data.type === "open") send({ type: "state", state: "idle" });
  });
});
