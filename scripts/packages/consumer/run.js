/** Runs train.js on the backend that the command line names, and prints the losses as JSON. */
import { cpu } from "@tiedlora/backend-cpu";
import { webgpu } from "@tiedlora/backend-webgpu";
import process from "node:process";
import { train } from "./train.js";

const BACKENDS = { cpu: () => cpu({ revectorize: "auto" }), webgpu };
console.log(JSON.stringify(await train(await BACKENDS[process.argv[2]]())));
