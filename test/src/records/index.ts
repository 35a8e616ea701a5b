/** The table of all op records. */
import { ELEMENTWISE } from "./elementwise.ts";
import { MOVEMENT } from "./movement.ts";
import { NETWORKS } from "./networks.ts";
import { PRODUCTS } from "./products.ts";
import type { OpRecord } from "./record.ts";
import { REDUCTIONS } from "./reductions.ts";

/** One record for each operation of the API. */
export const RECORDS: readonly OpRecord[] = [
  ...ELEMENTWISE,
  ...REDUCTIONS,
  ...MOVEMENT,
  ...PRODUCTS,
  ...NETWORKS,
];

/** Members of Tensor that are not operations, and why they need no record. */
export const NOT_OPERATIONS: { readonly [name: string]: string } = {
  constructor: "makes handles",
  node: "an accessor",
  shape: "an accessor",
  dtype: "an accessor",
  rank: "an accessor",
  size: "an accessor",
  data: "reads; every comparison goes through it",
  item: "reads",
  toArray: "reads",
  toString: "for messages",
};
