/** The messages between parent and child. */
import type { Verdict } from "./judge.ts";
import type { TargetName } from "./targets.ts";

/** Cases of one target, `from` to `to` - 1. */
export interface Job {
  readonly target: TargetName;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
  /** A folder that only this process uses. */
  readonly directory: string;
}

export interface CaseResult extends Verdict {
  readonly number: number;
  readonly ms: number;
  readonly bytes: number;
}
