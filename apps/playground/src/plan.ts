/** The plan of an adapter as plain data, which the page draws; the page has made it, or the worker has loaded it. */
import type { AdapterPlan } from "tiedlora";

export interface DrawnSite {
  /** Null for a module outside the layers, such as the output embedding. */
  readonly layer: number | null;
  /** The modules that are adapted as one. */
  readonly modules: readonly string[];
}

export interface DrawnFactor {
  readonly path: string;
  /** Its name in the method: "A". */
  readonly factor: string;
  readonly shape: readonly number[];
  readonly trained: boolean;
  /** The indices of the sites that use it. */
  readonly sites: readonly number[];
}

export interface DrawnPlan {
  readonly sites: readonly DrawnSite[];
  readonly factors: readonly DrawnFactor[];
}

export function drawnPlan({ sites, factors }: AdapterPlan): DrawnPlan {
  const index = new Map(sites.map(({ site }, i) => [site.path, i]));
  return {
    sites: sites.map(({ site }) => ({ layer: site.layer, modules: site.members.map(({ path }) => path) })),
    factors: factors.map(({ path, factor, shape, spec, sites: users }) => ({
      path,
      factor,
      shape: [...shape],
      trained: spec.trained,
      sites: users.map((site) => index.get(site.path)!),
    })),
  };
}
