/** Turns errors into messages that tell a visitor what to do. */
import { DeviceLostError, NoAdapterError, OutOfMemoryError } from "@tiedlora/backend-webgpu";
import { FormatError } from "@tiedlora/core";
import { HubError } from "@tiedlora/models/hub";
import { DivergedError } from "tiedlora";
import type { Reply } from "../protocol.ts";

type Problem = Extract<Reply, { type: "problem" }>;

export function explain(error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  const problem = (title: string, fatal: boolean): Problem => ({ type: "problem", title, message, fatal });
  if (error instanceof HubError) return problem("The hub gave no model", false);
  if (error instanceof NoAdapterError) return problem("There is no WebGPU here", false);
  if (error instanceof DeviceLostError)
    return {
      ...problem("The GPU was lost", true),
      message: `${message} Reload the page, or choose WebAssembly.`,
    };
  if (error instanceof OutOfMemoryError || /memory/i.test(message))
    return {
      ...problem("The model is too large for this device", true),
      message: `${message} Choose a smaller model, a smaller batch, or the other backend.`,
    };
  if (error instanceof FormatError) return problem("These files cannot be read", false);
  if (error instanceof DivergedError) return problem("The training went astray", false);
  return problem("That did not work", false);
}
