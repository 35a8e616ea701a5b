/** Runs the cases recorded from PyTorch under node:test. */
import { after, test } from "node:test";
import type { Device } from "@tiedlora/core";
import { recorded, type RecordedOptions } from "@tiedlora/test/recorded";
import { LONG, part } from "./effort.ts";

interface RegisterOptions extends RecordedOptions {
  readonly skip?: string | false;
  /** A prefix for the names of the tests. */
  readonly title?: string;
}

/** Registers a test for each operation. `share` is the share in CI; other runs scale or replace it. */
export function registerRecorded(makeDevice: () => Promise<Device> | Device, options: RegisterOptions): void {
  const share = LONG ? 1 : part(options.share ?? 1);
  const suite = recorded(makeDevice, { ...options, share });
  for (const { name, run } of suite.cases) {
    test(`${options.title ?? ""}${name}`, { skip: options.skip ?? false }, run);
  }
  after(() => suite.close());
}
