import { cpu } from "@tiedlora/backend-cpu";
import { prepare } from "./workloads.ts";
const device = await cpu();
const f: number[] = [], s: number[] = [];
let first = 0;
for (const length of [400, 401, 397, 402, 390, 410, 388, 421, 395, 405, 411]) {
  const t = prepare(device, { kind: "lstm", length });
  for (let i = 0; i < (length === 400 ? 8 : 4); i++) { const a = performance.now(); const l = t.step(i); const b = performance.now(); await l.data(); if (i === 0) { if (length === 400) first = b - a; else f.push(b - a); } else if (i > 1) s.push(b - a); }
}
console.log("first", first.toFixed(0), "new submit", f.map((x) => x.toFixed(0)).join(" "), "| cached submit", s.map((x) => x.toFixed(0)).join(" "));
device.close();
