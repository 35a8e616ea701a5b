/** What a run records of its settings: in its run.yaml, in the adapter's file, for callbacks and for workers. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseHubName } from "@tiedlora/models/node";
import { CHAT_TEMPLATE_NAMES } from "./chat-templates.ts";
import { baseOf, type Found, pinned } from "./find-model.ts";
import { quantizeOption } from "./quantized.ts";
import { nameOf } from "./settings.ts";
import type { TrainSettings } from "./train-settings.ts";
import { STANDARD_INPUT } from "./training-data.ts";

/** The settings that have a value, by their names in files. */
export function namedSettings(settings: TrainSettings): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(settings).flatMap(([key, value]) => (value === undefined ? [] : [[nameOf(key), value]])),
  );
}

/** What the adapter's file says of the training, by name. */
export function provenanceOf(settings: TrainSettings, steps: number, found: Found): Record<string, string> {
  const { model, quantize, data, task, loss, separator, init, initFrom, initDigest } = settings;
  const { seed, lr, batch, accumulate, seq, backend, schedule, weightDecay, ema } = settings;
  const numbers = { seed, steps, lr, batch, accumulate, seq, backend, schedule, weightDecay };
  return {
    ...baseOf(model, found),
    ...quantizeOption(quantize),
    ...((data as string | undefined) !== undefined && { data }),
    ...(task !== undefined && { task }),
    ...(loss !== "cross-entropy" && { loss }),
    ...(separator !== undefined && { separator }),
    ...(ema !== undefined && { ema: String(ema) }),
    ...(init !== undefined && { init }),
    ...(initFrom !== undefined && { init_from: initFrom, init_from_sha256: initDigest! }),
    ...Object.fromEntries(Object.entries(numbers).map(([key, value]) => [key, String(value)])),
  };
}

/** Whether a model is a directory of this machine: its path may look as the name of one on the hub does. */
const isHere = (model: string): boolean => parseHubName(model) === null || existsSync(model);

/** The settings with absolute paths, which do not depend on the current directory, and with the commit of a model of the hub. */
export function absolute(settings: TrainSettings, found: Found, initName: string | undefined): TrainSettings {
  const { model, data, valid, also, initFrom, teacher, chatTemplate: template, callbacks, out } = settings;
  const isNamed = template === undefined || CHAT_TEMPLATE_NAMES.includes(template);
  return {
    ...settings,
    ...(teacher !== undefined && isHere(teacher) && { teacher: resolve(teacher) }),
    ...(also !== undefined && {
      also: Object.fromEntries(Object.entries(also).map(([path, weight]) => [resolve(path), weight])),
    }),
    ...(!isNamed && { chatTemplate: resolve(template) }),
    model: found.hub === null ? resolve(model) : pinned(model, found),
    ...((data as string | undefined) !== undefined && {
      data: data === STANDARD_INPUT ? data : resolve(data),
    }),
    out: resolve(out),
    ...(valid !== undefined && { valid: resolve(valid) }),
    ...(callbacks !== undefined && { callbacks: resolve(callbacks) }),
    ...(initFrom !== undefined && {
      initFrom: initName ?? (parseHubName(initFrom)?.pinned ? initFrom : resolve(initFrom)),
    }),
  };
}
