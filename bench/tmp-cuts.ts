import { cpu } from "@tiedlora/backend-cpu";
import { prepare } from "./workloads.ts";
import * as periods from "@tiedlora/kernels/periods";
import { piecesOf } from "../packages/core/src/compile/pieces.ts";
const device = await cpu();
for (const length of [400,401]) {
const tr = prepare(device, { kind: "lstm", length });
const t = tr.optimizer.trace(tr.loss(0));
const t0=performance.now();
const p = piecesOf(t.tensors.map((x:any)=>x.node), t.updates as any)!;
console.log("ms", performance.now()-t0);
console.log(p.pieces.map(x=>`${x.roots.length}/${x.origins.size}`).join(" "));
console.log((globalThis as any).REG);
}
device.close();
