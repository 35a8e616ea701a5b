/** PostgreSQL as the queue's server. */
import type * as Bull from "bullmq";
import type { Pool } from "pg";
import type { Connector } from "./server.ts";
import { ANNOUNCED, type Store } from "./store.ts";

/** The schemas of BullMQ's tables, and of the store. */
const JOBS_SCHEMA = "tiedlora_jobs";
const SCHEMA = "tiedlora";
/** For how long a connection, and an answer, is waited for: then the server is away, and it is tried again. */
const TIMEOUTS = { connectionTimeoutMillis: 5000, query_timeout: 120_000, keepAlive: true } as const;
/** One write in so many removes what has expired. */
const CLEAN_EVERY = 200;
/**
 * Commits do not wait for the disk: if the server's machine fails, the last moments are lost, as on Redis, and whoever misses a job
 * or a result adds the job again.
 */
const OPTIONS = "-c synchronous_commit=off";

export async function connectPostgres(
  Pg: typeof Pool,
  bull: typeof Bull,
  url: string,
  onError: (error: Error) => void,
): Promise<Connector> {
  const pool = new Pg({
    connectionString: url,
    max: 2,
    options: OPTIONS,
    ...TIMEOUTS,
  });
  pool.on("error", onError);
  try {
    await createTable(pool);
  } catch (error) {
    await pool.end();
    throw error;
  }
  return {
    store: postgresStore(pool),
    options: () => ({
      connection: {
        connectionString: url,
        schema: JOBS_SCHEMA,
        migrate: true,
        max: 4,
        options: OPTIONS,
        ...TIMEOUTS,
      },
    }),
    backend: bull.createPostgresBackend,
    close: () => pool.end(),
  };
}

async function createTable(pool: Pool): Promise<void> {
  const client = await pool.connect();
  try {
    // Two clients that create the same thing at the same moment would make one of them fail.
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock(hashtext('tiedlora'))");
    await client.query(`create schema if not exists ${SCHEMA}`);
    await client.query(
      `create table if not exists ${SCHEMA}.store (key text primary key, value bytea not null, expires timestamptz not null)`,
    );
    await client.query("commit");
  } finally {
    client.release(true);
  }
}

function postgresStore(pool: Pool): Store {
  let writes = 0;
  return {
    get: async (key) => {
      const { rows } = await pool.query<{ value: Buffer }>(
        `select value from ${SCHEMA}.store where key = $1 and expires > now()`,
        [key],
      );
      return rows[0]?.value ?? null;
    },
    set: async (key, bytes, seconds) => {
      await pool.query(
        `insert into ${SCHEMA}.store values ($1, $2, now() + make_interval(secs => $3))
         on conflict (key) do update set value = excluded.value, expires = excluded.expires`,
        [key, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), seconds],
      );
      if (++writes % CLEAN_EVERY === 0) await pool.query(`delete from ${SCHEMA}.store where expires < now()`);
    },
    delete: async (keys) => {
      await pool.query(`delete from ${SCHEMA}.store where key = any($1)`, [keys]);
    },
    announced: async () => {
      const { rows } = await pool.query<{ key: string; value: Buffer }>(
        `select key, value from ${SCHEMA}.store where starts_with(key, $1) and expires > now() order by key`,
        [ANNOUNCED],
      );
      return new Map(rows.map(({ key, value }) => [key.slice(ANNOUNCED.length), value.toString("utf8")]));
    },
  };
}
