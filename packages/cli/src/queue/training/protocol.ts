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
      /** The directory of the model that it learns from; null if there is none. */
      readonly teacher: string | null;
      readonly data: string;
      /** The files of the adapter. */
      readonly adapter: Uint8Array;
      readonly revectorize: boolean;
      /** The address of the queue's server, from which the process gets values, and to which it gives gradients. */
      readonly queue: string;
    }
  | {
      /** Compute the gradients of a micro-batch, and store them. */
      readonly type: "work";
      readonly id: string;
      readonly job: MicroBatchJob;
    }
  | {
      /** Forget a training. */
      readonly type: "leave";
      readonly id: string;
    };

export type Answer =
  /** `stored`: gradients were computed and stored; otherwise there was nothing to compute, since the step is over. */
  { readonly type: "done"; readonly stored: boolean } | { readonly type: "failed"; readonly message: string };
