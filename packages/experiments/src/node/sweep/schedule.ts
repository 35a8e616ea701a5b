/** The schedule of a sweep in its folder: a search knows its earlier decisions, and writes down those that it makes. */
import { expandSweep } from "../../sweep/expand.ts";
import { HalvingSchedule } from "../../sweep/halving.ts";
import { halvingOf } from "../../sweep/search.ts";
import { fixedSchedule, type Schedule } from "../../sweep/source.ts";
import type { SweepSpec } from "../../sweep/spec.ts";
import type { RunStore } from "./store.ts";

/** What there is to do in a sweep whose results are kept in `store`; a search has to be told of the results that are there. */
export async function scheduleOf(spec: SweepSpec, store: RunStore): Promise<Schedule> {
  if (halvingOf(spec) === null) return fixedSchedule(expandSweep(spec));
  const decided = await store.decided();
  return new HalvingSchedule(spec, { decided, onDecision: (decision) => store.decide(decision) });
}
