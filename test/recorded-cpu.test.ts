/** The cases recorded from PyTorch on the CPU backend: all with one thread, some with two, which share larger kernels. */
import { cpu } from "@tiedlora/backend-cpu";
import { registerRecorded } from "./support/recorded.ts";

registerRecorded(() => cpu({ threads: 1 }), { backend: "cpu" });
registerRecorded(() => cpu({ threads: 2 }), { backend: "cpu", title: "two threads: ", share: 0.15 });
