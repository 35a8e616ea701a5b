/** The schedule of ranks that --rank-schedule gives to ada-lora. */
import { type Adapter, RankSchedule, type RankScheduleOptions } from "tiedlora";
import { UsageError } from "./settings.ts";
import type { TrainSettings } from "./train-settings.ts";

/** Throws UsageError if the schedule does not fit the adapter or the number of steps. */
export function rankScheduleOf(
  adapter: Adapter,
  { rankSchedule }: TrainSettings,
  steps: number,
): RankSchedule {
  try {
    return new RankSchedule(adapter, { steps, ...rankSchedule } as unknown as RankScheduleOptions);
  } catch (cause) {
    throw new UsageError(`--rank-schedule: ${(cause as Error).message.replace(/^RankSchedule: /, "")}`);
  }
}
