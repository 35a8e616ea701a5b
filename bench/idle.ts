/** A backend that computes nothing, for what is done before a program runs. */
import { type Backend, type DeviceBuffer, ReferenceBackend } from "@tiedlora/core";

/** A backend whose memory holds nothing and whose programs do nothing. */
export function idleBackend(): Backend {
  const alloc = (bytes: number): DeviceBuffer => ({
    bytes,
    write: () => {},
    read: () => Promise.resolve(new ArrayBuffer(bytes)),
    free: () => {},
  });
  const compile = () => ({ tempBytes: 0, run: () => {}, free: () => {} });
  return Object.assign(new ReferenceBackend(), { alloc, compile });
}
