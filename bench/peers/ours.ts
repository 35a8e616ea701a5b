/** The process that trains with tiedlora. */
import { prepare } from "../workloads.ts";
import { serve } from "./serve.ts";

await serve(async ({ work, backend, cache }) => {
  const options = cache === undefined ? {} : { cache };
  const device =
    backend === "cpu"
      ? await (await import("@tiedlora/backend-cpu")).cpu(options)
      : await (await import("@tiedlora/backend-webgpu")).webgpu(options);
  const training = prepare(device, work);
  return (i) => training.step(i).item();
});
