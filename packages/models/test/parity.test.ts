import { cpu } from "@tiedlora/backend-cpu";
import { reference } from "@tiedlora/core";
import { registerParity } from "./support/parity.ts";

registerParity("reference", reference, { tokens: 30 });
registerParity("cpu", cpu, { tokens: 195 });
