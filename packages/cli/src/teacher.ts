/** The model that a distillation learns from. */
import type { Device } from "@tiedlora/core";
import type { Decoder } from "@tiedlora/models";
import { loadPretrained } from "@tiedlora/models/node";
import { findModel } from "./find-model.ts";
import type { LossSettings } from "./loss-settings.ts";
import type { Output } from "./output.ts";

/** The model of --teacher; null if there is none. `stream`: whether its weights, as those of the model that is trained, stay in their files. */
export async function loadTeacher(
  { teacher }: Pick<LossSettings, "teacher">,
  device: Device,
  output: Output,
  stream: boolean,
): Promise<Decoder | null> {
  if (teacher === undefined) return null;
  const { directory } = await findModel(teacher, output, { setting: "--teacher" });
  return (await loadPretrained(directory, { device, stream })).model;
}
