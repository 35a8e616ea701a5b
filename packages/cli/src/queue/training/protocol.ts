/** The messages between a worker and the process in which it trains. */
import type { MicroBatchJob, TrainingAnnouncement } from "./announcement.ts";

/** From the worker: a request, each of which has one answer. */
export type Request =
  | {
      /** Load what a training needs, or check that it fits what is loaded. */
      readonly type: "join";
      readonly announcement: TrainingAnnouncement;
      /** The directory of the base model, and the data, on this machine. */
      readonly directory: string;
      readonly data: string;
      /** The files of the adapter. */
      readonly adapter: Uint8Array;
      readonly revectorize: boolean;
    }
  | {
      /** Compute the gradients of a micro-batch. */
      readonly type: "work";
      readonly id: string;
      readonly job: MicroBatchJob;
      /** The values of the trained parameters; null if they are those of the job before. */
      readonly weights: Uint8Array | null;
    }
  | {
      /** Forget a training. */
      readonly type: "leave";
      readonly id: string;
    };

export type Answer =
  | { readonly type: "done"; readonly result: Uint8Array | null }
  | { readonly type: "failed"; readonly message: string };
