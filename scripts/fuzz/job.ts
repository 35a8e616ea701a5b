/** What parent and child tell each other. */
import type { Verdict } from "./judge.ts";
import type { TargetName } from "./targets.ts";

/** Cases of one target, `from` to `to` - 1. */
export interface Job {
  readonly target: TargetName;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
  /** A folder of this process's own. */
  readonly directory: string;
}

export interface CaseResult extends Verdict {
  readonly number: number;
  readonly ms: number;
  readonly bytes: number;
}
