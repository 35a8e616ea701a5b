/** What a search compares: trials, which are runs that differ in their seeds alone, within each task, method and rank. */
import type { RunConfig } from "./config.ts";

/** The runs of one combination of settings, one for each seed. */
export type Trial = readonly RunConfig[];

/** The trials that are compared with each other. */
export interface Group {
  /** "translation tl6 rank 8" */
  readonly name: string;
  readonly trials: readonly Trial[];
}

/** Groups runs into trials, and trials into competitions, in the order of the runs. */
export function competitionsOf(configs: readonly RunConfig[]): Group[] {
  const groups = new Map<string, Map<string, RunConfig[]>>();
  for (const config of configs) {
    const name = `${config.task} ${config.method} rank ${config.rank}`;
    let trials = groups.get(name);
    if (trials === undefined) groups.set(name, (trials = new Map<string, RunConfig[]>()));
    const key = variantOf(config);
    const seeds = trials.get(key);
    if (seeds === undefined) trials.set(key, [config]);
    else seeds.push(config);
  }
  return [...groups].map(([name, trials]) => ({ name, trials: [...trials.values()] }));
}

/** Everything that distinguishes two whole runs besides their seed, as a key. */
export function variantOf(config: RunConfig): string {
  return JSON.stringify({ ...config, seed: 0, until: undefined });
}
