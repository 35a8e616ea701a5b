/** A wrapper of a backend that counts the kernels submitted. It passes everything on to that backend. */
import type { Backend, Executable } from "@tiedlora/core";

export class Counting {
  kernels = 0;
  readonly backend: Backend;

  constructor(inner: Backend) {
    const counted = (executable: Executable, kernels: number): Executable => ({
      tempBytes: executable.tempBytes,
      run: (inputs, outputs, scalars) => {
        this.kernels += kernels;
        executable.run(inputs, outputs, scalars);
      },
      free: () => executable.free(),
    });
    this.backend = {
      name: inner.name,
      caps: inner.caps,
      alloc: (bytes) => inner.alloc(bytes),
      accelerates: (call) => inner.accelerates(call),
      compile: (program) => {
        const executable = inner.compile(program);
        const { length } = program.steps;
        return executable instanceof Promise
          ? executable.then((ready) => counted(ready, length))
          : counted(executable, length);
      },
      sync: () => inner.sync(),
      memory: () => inner.memory(),
      close: () => inner.close(),
    };
  }
}
