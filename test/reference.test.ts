/** The conformance suite on the reference: that the specification means what the yardstick says it means. */
import { Device, ReferenceBackend } from "@tiedlora/core";
import { register } from "./support/conformance.ts";

register(({ fusion }) => new Device(new ReferenceBackend(), { fusion }));
