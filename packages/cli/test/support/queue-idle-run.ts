/** Stands for the process that performs runs: writes the id of each into a file, and answers at once with a made-up result. */
import { appendFileSync } from "node:fs";
import type { RunConfig } from "@tiedlora/experiments";
import { idleResult } from "./queue-idle-result.ts";

process.on("message", (order: { readonly type: string; readonly job: { readonly config: RunConfig } }) => {
  if (order.type !== "run") return;
  const { config } = order.job;
  appendFileSync(process.env["TIEDLORA_RUN_LOG"]!, `${config.seed}\n`);
  process.send!({ type: "done", result: idleResult(config) });
});
process.on("disconnect", () => process.exit());
