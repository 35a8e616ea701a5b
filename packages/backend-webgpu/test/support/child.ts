/** Cases that are tested in a separate process: that it ends by itself, without an adapter, and without growing. */
import { setImmediate as turn } from "node:timers/promises";
import { webgpu } from "@tiedlora/backend-webgpu";

const CASES: { readonly [name: string]: () => Promise<void> } = {
  "compute and close": async () => {
    const device = await webgpu();
    console.log(await device.tensor([1, 2, 3]).square().sum().item());
    device.close();
  },

  "close with a read pending": async () => {
    const device = await webgpu();
    const pending = device.tensor([1, 2, 3]).square().sum().item();
    device.close();
    await pending.catch((error: Error) => console.log(error.name));
  },

  "an error without close": async () => {
    await webgpu();
    throw new Error("unhandled");
  },

  "no adapter": async () => {
    await webgpu().catch((error: Error) => console.log(`${error.name}: ${error.message}`));
  },

  /** Prints megabytes resident after 100 and after 200 devices. */
  "200 devices": async () => {
    for (let i = 1; i <= 200; i++) {
      const device = await webgpu();
      if (i % 4 === 0) await device.tensor([1, 2, 3]).square().sum().item();
      if (i % 4 === 1) await device.sync();
      device.close();
      globalThis.gc!();
      await turn();
      if (i % 100 === 0) console.log(process.memoryUsage().rss / 2 ** 20);
    }
  },

  /** The object through which Dawn is reached must survive every garbage collection. */
  "collections while computing": async () => {
    const device = await webgpu();
    let x = device.tensor([1, 2, 3]);
    for (let i = 0; i < 20; i++) {
      globalThis.gc!();
      await turn();
      x = x.add(1);
      await x.sum().item();
    }
    console.log(await x.sum().item());
    device.close();
  },
};

await CASES[process.argv[2]!]!();
