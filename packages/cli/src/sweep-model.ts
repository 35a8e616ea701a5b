/** The models that a sweep names: one of the hub, a directory, or an embedded base model. */
import { embeddedBase } from "@tiedlora/experiments/node";
import { findModel, type Found } from "./find-model.ts";
import type { Output } from "./output.ts";

/** The directory of a model that a sweep's file names in `setting`. Throws as `findModel` does. */
export function findSweepModel(given: string, output: Output, setting: string): Promise<Found> {
  return findModel(embeddedBase(given) ?? given, output, { setting });
}
