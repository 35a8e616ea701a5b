/** The process that trains with tiedlora. */
import { prepare } from "../workloads.ts";
import { serve } from "./serve.ts";

await serve(async ({ work, backend }) => {
  const device =
    backend === "cpu"
      ? await (await import("@tiedlora/backend-cpu")).cpu()
      : await (await import("@tiedlora/backend-webgpu")).webgpu();
  const training = prepare(device, work);
  return (i) => training.step(i).item();
});
