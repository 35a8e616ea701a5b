/** The folder in which a command and the processes that it starts keep plans and code for later ones: the environment names it. */

/** The option of a device for the lasting cache; none if TIEDLORA_CACHE is not set, or empty. */
export function lastingCache(): { readonly cache?: string } {
  const folder = process.env["TIEDLORA_CACHE"];
  return folder === undefined || folder === "" ? {} : { cache: folder };
}
