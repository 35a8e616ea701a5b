/** Servers for queues on the loopback interface, in a temporary folder; they keep nothing when they end. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { temporary } from "./model-directory.ts";

export interface TestServer {
  /** The address with the right password, and with a wrong one. */
  readonly url: string;
  readonly wrong: string;
  /** Ends the server as `kill` does, and starts it again after a while; a server without a disk has then forgotten everything. */
  restart(): Promise<void>;
  /** Ends the server; the function that it resolves to starts it again. */
  interrupt(): Promise<() => Promise<void>>;
  stop(): Promise<void>;
}

const PASSWORD = "secret";
const DOWN_MS = 500;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { readonly port: number };
  server.close();
  return port;
}

/** Waits until something listens on a port. */
async function listening(port: number, child: ChildProcess): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    const socket = connect(port, "127.0.0.1");
    const found = await new Promise((resolve) => {
      socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
    });
    socket.destroy();
    if (found === true) return;
    await sleep(50);
  }
}

/** A server from a command that starts it, and from what resolves once it serves. */
async function serverOf(
  run: () => ChildProcess,
  serves: (child: ChildProcess) => Promise<void>,
  urls: Pick<TestServer, "url" | "wrong">,
): Promise<TestServer> {
  let child = run();
  const kill = (): boolean => child.kill("SIGKILL");
  process.on("exit", kill);
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    const end = once(child, "exit");
    child.kill(signal);
    await end;
  };
  await serves(child);
  const interrupt = async (): Promise<() => Promise<void>> => {
    await stop("SIGINT"); // PostgreSQL's "fast" shutdown
    return () => {
      child = run();
      return serves(child);
    };
  };
  return {
    ...urls,
    interrupt,
    restart: async () => {
      const startAgain = await interrupt();
      await sleep(DOWN_MS);
      await startAgain();
    },
    stop: async () => {
      process.off("exit", kill);
      await stop("SIGINT");
    },
  };
}

const found = (program: string): boolean => spawnSync(program, ["--version"]).error === undefined;
const VALKEY = ["valkey-server", "redis-server"].find(found);

async function startValkey(): Promise<TestServer> {
  const port = await freePort();
  const options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", PASSWORD, "--dir", temporary()]; // prettier-ignore
  const run = (): ChildProcess => spawn(VALKEY!, options.map(String), { stdio: "ignore" });
  const url = (password: string): string => `redis://:${password}@127.0.0.1:${port}`;
  return serverOf(run, (child) => listening(port, child), { url: url(PASSWORD), wrong: url("guess") });
}

const DEBIAN = "/usr/lib/postgresql";
const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort() : [];
const POSTGRES = versions.length > 0 ? join(DEBIAN, versions.at(-1)!, "bin") : null;

/** The user as whom PostgreSQL is run: it refuses to be root. */
function unprivileged(): { readonly uid?: number; readonly gid?: number } {
  if (process.getuid!() !== 0) return {};
  const [, , uid, gid] = /^postgres:.*$/m.exec(readFileSync("/etc/passwd", "utf8"))![0].split(":");
  return { uid: Number(uid), gid: Number(gid) };
}

async function startPostgres(): Promise<TestServer> {
  const port = await freePort();
  const folder = temporary();
  const user = unprivileged();
  const data = join(folder, "data");
  const password = join(folder, "password");
  mkdirSync(data, { mode: 0o700 });
  writeFileSync(password, PASSWORD);
  if (user.uid !== undefined)
    for (const path of [folder, data, password]) chownSync(path, user.uid, user.gid!);
  const { status, stderr } = spawnSync(
    join(POSTGRES!, "initdb"),
    ["-D", data, "-U", "tester", "--auth=scram-sha-256", `--pwfile=${password}`, "--no-sync"],
    { ...user, cwd: folder, encoding: "utf8" },
  );
  if (status !== 0) throw new Error(`initdb: ${stderr}`);
  rmSync(password);
  const settings = [`port=${port}`, "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"];
  const options = ["-D", data, ...settings.flatMap((one) => ["-c", one])];
  const run = (): ChildProcess =>
    spawn(join(POSTGRES!, "postgres"), options, { ...user, cwd: folder, stdio: "ignore" });
  const url = (one: string): string => `postgres://tester:${one}@127.0.0.1:${port}/postgres`;
  // while it starts it listens, and refuses
  const serves = async (child: ChildProcess): Promise<void> => {
    await listening(port, child);
    const asked = ["-q", "-h", "127.0.0.1", "-p", String(port)];
    while (spawnSync(join(POSTGRES!, "pg_isready"), asked).status !== 0) {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
      await sleep(50);
    }
  };
  return serverOf(run, serves, { url: url(PASSWORD), wrong: url("guess") });
}

/** The servers that can be a queue's; `skip` says why one cannot be started here, or is false. */
export const SERVERS = {
  Valkey: {
    start: startValkey,
    skip: VALKEY === undefined && "valkey-server is not installed: bash scripts/setup-system.sh",
  },
  PostgreSQL: {
    start: startPostgres,
    skip: POSTGRES === null && "postgresql is not installed: bash scripts/setup-system.sh",
  },
} as const;

/** Starts a server for the time of a test. */
export async function started(t: TestContext, server: keyof typeof SERVERS): Promise<TestServer> {
  const made = await SERVERS[server].start();
  t.after(() => made.stop());
  return made;
}
