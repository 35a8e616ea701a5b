import { cpu } from "@tiedlora/backend-cpu";
import { prepare } from "./workloads.ts";
const device = await cpu(process.env.INL ? { inlineNs: Number(process.env.INL) } : {});
for (const length of process.env.ONE ? [400] : [400, 401, 397, 402,377,415]) {
  const training = prepare(device, { kind: "lstm", length });
  for (let i = 0; i < (length===400?12:4); i++) {
    const c = process.cpuUsage(), t = performance.now();
    const l = training.step(i);
    const t1 = performance.now();
    const v = await l.data();
    const d = process.cpuUsage(c);
    console.log(length, i, "submit", (t1 - t).toFixed(0), "all", (performance.now() - t).toFixed(0), "cpu", ((d.user + d.system) / 1000).toFixed(0), v[0], JSON.stringify((device as any).memory?.()));
  }
}
device.close();
