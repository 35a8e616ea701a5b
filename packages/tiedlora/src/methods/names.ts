/** What the methods of the library are called: by the command line, in files, and in the tables that hold something for each. */

/** The name of a method of the library. */
export type MethodName =
  | "lora"
  | "vera"
  | "tl1"
  | "tl2"
  | "tl3"
  | "tl4"
  | "tl5"
  | "tl6"
  | "rslora"
  | "lora-fa"
  | "sharelora-a"
  | "sharelora-b"
  | "sharelora-ab"
  | "dora"
  | "lora-bias"
  | "lora-xs"
  | "vb-lora";
