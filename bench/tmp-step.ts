import { cpu } from "@tiedlora/backend-cpu";
import { prepare } from "./workloads.ts";
const device = await cpu();
const t = prepare(device, { kind: "lstm", length: 400 });
const all: number[] = [], sub: number[] = [], cp: number[] = [];
for (let i = 0; i < 24; i++) { const c = process.cpuUsage(), s = performance.now(); const l = t.step(i); const m = performance.now(); await l.data(); const d=process.cpuUsage(c); all.push(performance.now() - s); sub.push(m - s); cp.push((d.user+d.system)/1000); }
const med = (a: number[]) => a.slice(12).sort((x, y) => x - y)[6]!.toFixed(0);
console.log(process.argv[2], "first", all[0]!.toFixed(0), "step", med(all), "submit", med(sub), "cpu", med(cp), "min", Math.min(...all.slice(12)).toFixed(0));
device.close();
