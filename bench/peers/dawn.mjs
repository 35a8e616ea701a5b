/** navigator.gpu for frameworks that expect a browser, from the npm package webgpu (Dawn). */
import { create, globals } from "webgpu";

const kept = []; // Dawn's object has to stay reachable while it is in use

export function installDawn() {
  for (const [name, value] of Object.entries(globals)) globalThis[name] ??= value;
  kept.push(create([]));
  const navigator = globalThis.navigator ?? {};
  const define = (target, name, value) => Object.defineProperty(target, name, { value, configurable: true });
  if (!navigator.userAgent) define(navigator, "userAgent", `Node.js/${process.versions.node}`);
  define(navigator, "gpu", kept[0]);
  if (globalThis.navigator === undefined) define(globalThis, "navigator", navigator);
}
