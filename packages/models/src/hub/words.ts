/** What messages call the settings of a download: variables of the environment in Node, options and fields in a page. */
export interface Words {
  /** The setting that names the hub. */
  readonly endpoint: string;
  /** What to do with a mirror: "name a mirror …". */
  readonly mirror: string;
  /** What to do with a token. */
  readonly token: (which?: string) => string;
  /** What else the name could have been. */
  readonly orDirectory: string;
  /** The end of the message that the hub cannot be reached. */
  readonly unreachable: string;
  /** What goes on with a download that was cut. */
  readonly again: string;
}

export const NODE_WORDS: Words = {
  endpoint: "HF_ENDPOINT",
  mirror: "name a mirror in HF_ENDPOINT",
  token: (which) => (which === undefined ? "set HF_TOKEN" : `set HF_TOKEN to ${which}`),
  orDirectory: ", nor a directory of that name here",
  unreachable:
    ", and there is no directory of that name here; check the network and HF_ENDPOINT, or give the directory of a model",
  again: "the same command goes on from there",
};

export const PAGE_WORDS: Words = {
  endpoint: "endpoint",
  mirror: "name a mirror as endpoint",
  token: (which) => (which === undefined ? "give a token" : `give ${which} as token`),
  orDirectory: "",
  unreachable:
    "; check the network and the endpoint, which has to be a hub that pages may ask: it allows other origins (CORS)",
  again: "loading the model again goes on from there",
};
