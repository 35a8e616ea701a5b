import { cpu } from "@tiedlora/backend-cpu";
import { prepare } from "./workloads.ts";
import { explain } from "@tiedlora/core";
const device = await cpu({threads:1});
for (const length of [400]) {
const tr = prepare(device, { kind: "lstm", length });
const e: any = explain(tr.optimizer.trace(tr.loss(0)) as any);
const m = new Map<string, number>();
for (const s of e.steps ?? e.kernels) { const k = s.name.replace(/(\d+\+)+\d+/, (x:string)=>`sum of ${x.split("+").length}`) + " | " + s.rules.join(","); m.set(k, (m.get(k) ?? 0) + 1); }

for (let i=0;i<12;i++) await tr.step(i).data();
const backend = (device as any).backend;
const times: any = await backend.profile(async () => { await tr.step(1).data(); });
const sum = new Map<string, [number, number]>();
let all=0;
for (const t of times) { const key = Object.entries(t).filter(([k])=>typeof (t as any)[k]==="string").map(x=>x[1]).join(" "); const ms = t.milliseconds; all+=ms; const o = sum.get(key) ?? [0,0]; sum.set(key,[o[0]+1,o[1]+ms]); }
console.log(Object.keys(times[0]), times.length, all.toFixed(1));
console.log([...sum].sort((a,b)=>b[1][1]-a[1][1]).slice(0,20).map(([k,v])=>v[1].toFixed(2)+" ms "+v[0]+" "+k).join("\n"));
}
device.close();
