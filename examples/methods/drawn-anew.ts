/** LoRA-FA whose frozen A is never kept: each program draws it again from the place's key. */
import { random } from "@tiedlora/core";
import { defineMethod, init } from "tiedlora";

export const drawnAnew = defineMethod({
  name: "drawn-anew",
  rank: 4,
  seeded: true,
  factors: { B: { shape: ["out", "rank"], init: init.zeros() } },
  lowRank: ({ B }, { key, dims }) => ({
    A: random
      .uniform(key, [dims.rank, dims.in])
      .sub(0.5)
      .mul(Math.sqrt(12 / dims.in)),
    B,
  }),
});
