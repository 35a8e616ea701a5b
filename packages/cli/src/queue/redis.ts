/** Redis and Valkey as the queue's server. */
import type { Redis } from "ioredis";
import type { Connector } from "./server.ts";
import { ANNOUNCED, type Store } from "./store.ts";

const PREFIX = "tiedlora:store:";
/** The set of the keys of announcements, some of which may have expired. */
const LIST = "tiedlora:announced";
const CONNECT_MS = 5000;
const RECONNECT_MS = 500;

export async function connectRedis(
  Client: typeof Redis,
  url: string,
  onError: (error: Error) => void,
): Promise<Connector> {
  await probe(Client, url);
  const retryStrategy = (): number => RECONNECT_MS;
  const client = new Client(url, { maxRetriesPerRequest: null, retryStrategy });
  client.on("error", onError);
  return {
    store: redisStore(client),
    options: () => ({ connection: { url, maxRetriesPerRequest: null, retryStrategy } }),
    backend: undefined,
    close: () => Promise.resolve(client.disconnect()),
  };
}

/** Throws if no server answers, or if it refuses. */
async function probe(Client: typeof Redis, url: string): Promise<void> {
  let last: Error | null = null;
  const options = {
    lazyConnect: true,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_MS,
  };
  const client = new Client(url, options);
  client.on("error", (error: Error) => (last ??= error));
  try {
    await client.connect();
    await client.ping();
    if (last !== null) throw last as Error; // a refused password is only an event
  } catch (error) {
    throw last ?? error;
  } finally {
    client.disconnect();
  }
}

function redisStore(client: Redis): Store {
  return {
    get: (key) => client.getBuffer(PREFIX + key),
    set: async (key, bytes, seconds) => {
      await client.set(
        PREFIX + key,
        Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
        "EX",
        seconds,
      );
      if (key.startsWith(ANNOUNCED)) await client.sadd(LIST, key);
    },
    delete: async (keys) => {
      if (keys.length === 0) return;
      await client.del(...keys.map((key) => PREFIX + key));
      const listed = keys.filter((key) => key.startsWith(ANNOUNCED));
      if (listed.length > 0) await client.srem(LIST, ...listed);
    },
    announced: async () => {
      const found = new Map<string, string>();
      for (const key of (await client.smembers(LIST)).sort()) {
        const text = await client.get(PREFIX + key);
        if (text === null) await client.srem(LIST, key);
        else found.set(key.slice(ANNOUNCED.length), text);
      }
      return found;
    },
  };
}
