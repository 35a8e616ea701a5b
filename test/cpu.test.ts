/** The conformance suite on the CPU backend. */
import { cpu } from "@tiedlora/backend-cpu";
import { register } from "./support/conformance.ts";

register(({ fusion }) => cpu({ fusion }));
