/** `tiedlora sweep FILE --queue URL --status`: who performs which run, as the queue's server knows. */
import type { Schedule } from "@tiedlora/experiments";
import { type Performing, type RunStore, statusOf } from "@tiedlora/experiments/node";
import type { Output } from "../../output.ts";
import { showStatus } from "../../sweep-status.ts";
import { QueueServer } from "../server.ts";
import { names } from "./announcement.ts";
import { sweepId } from "./command.ts";

interface Queued {
  readonly name: string;
  readonly store: RunStore;
  readonly schedule: () => Promise<Schedule>;
  readonly json: boolean;
}

/** Prints the state of a sweep whose runs are on a queue. Its results are those in the folder. */
export async function showQueueStatus(
  url: string,
  { store, schedule, ...shown }: Queued,
  output: Output,
): Promise<void> {
  const server = await QueueServer.open(url, output);
  try {
    const queue = await server.queue(names.queue(sweepId(store)));
    const performing = async (): Promise<Performing[]> => {
      const jobs = await server.persist(() => queue.getActive());
      return jobs.map(({ id, processedBy = "", processedOn, attemptsStarted, progress }) => {
        const [host = "", pid = ""] = processedBy.split("/");
        return {
          id: id!, host: host === "" ? null : host, pid: pid === "" ? null : Number(pid),
          since: processedOn === undefined ? null : new Date(processedOn).toISOString(), attempt: Math.max(1, attemptsStarted),
          step: typeof progress === "number" ? progress : 0, silent: 0, dead: false,
        }; // prettier-ignore
      });
    };
    await showStatus({ ...shown, read: async () => statusOf(store, await schedule(), await performing()) }, output); // prettier-ignore
  } finally {
    await server.close();
  }
}
