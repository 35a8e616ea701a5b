/** A device on the same backend, which claims to have no library kernels. */
import { type Backend, Device } from "@tiedlora/core";

export function withoutLibrary(device: Device): Device {
  const { backend } = device;
  const plain: Backend = {
    name: `${backend.name}, without library kernels`,
    caps: backend.caps,
    alloc: (bytes) => backend.alloc(bytes),
    accelerates: () => false,
    compile: (program) => backend.compile(program),
    sync: () => backend.sync(),
    memory: () => backend.memory(),
    close: () => {}, // the other device closes the backend
  };
  return new Device(plain);
}
