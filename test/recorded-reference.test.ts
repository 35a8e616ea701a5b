/** The cases recorded from PyTorch on the reference. */
import { reference } from "@tiedlora/core";
import { registerRecorded } from "./support/recorded.ts";

registerRecorded(() => reference(), { backend: "reference" });
