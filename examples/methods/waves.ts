/** Layers differ by their depth alone: the shared update is a mixture of three waves over the layers. */
import { defineMethod, init } from "tiedlora";

export const waves = defineMethod({
  name: "waves",
  rank: 4,
  factors: {
    A: { shape: ["rank", "in"], init: init.normal(), tie: "all" },
    B: { shape: [3, "out", "rank"], init: init.zeros(), tie: "all" },
  },
  lowRank: ({ A, B }, { layer, dims }) => {
    const wave = (k: number) =>
      B.narrow(0, k, 1)
        .squeeze(0)
        .mul(Math.cos((Math.PI * k * layer) / dims.layers));
    return { A, B: wave(0).add(wave(1)).add(wave(2)) };
  },
});
