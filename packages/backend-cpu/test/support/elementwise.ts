/** Programs of one loop each, as a process with a cache: the folder and the operations, in turn, are its arguments. */
import { argv } from "node:process";
import { cpu } from "@tiedlora/backend-cpu";

const [, , cache, ...operations] = argv;
const device = await cpu({ threads: 1, cache: cache! });
const results: number[][] = [];
for (const operation of operations) {
  const x = device.tensor([1, 4, 9, 16, 25]);
  results.push([...(await (operation === "sqrt" ? x.sqrt() : x.neg()).data())]);
}
console.log(JSON.stringify(results));
device.close();
