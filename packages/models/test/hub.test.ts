/** Models by name, against a hub on this machine: what is loaded, the cache that it shares with Python, and every fault. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { typescriptProgram } from "../../../test/support/programs.ts";
import { reference } from "@tiedlora/core";
import { parseHubName } from "../src/hub/name.ts";
import { Sha256 } from "../src/hub/sha256.ts";
import { hubSettings } from "../src/node/hub-settings.ts";
import { modelDirectory } from "../src/node/hub.ts";
import { type DownloadOptions, downloadModel, HubError, isOnHub, loadConfig } from "../src/node.ts";
import { loadPretrained, loadTokenizer, saveModel } from "../src/node.ts";
import { configFrom } from "../src/config.ts";
import { createModel } from "../src/load.ts";
import { byteTokenizerFiles } from "./support/byte-tokenizer.ts";
import { commitOf, etagOf, type Fault, HubServer, type Repository, TOKEN } from "./support/hub-server.ts";

const WEIGHTS = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) % 256));
const FILES = {
  "README.md": "# a model",
  "config.json": '{"model_type": "llama"}',
  "generation_config.json": "{}",
  "model.safetensors": WEIGHTS,
  "onnx/model.onnx": "unused",
  "pytorch_model.bin": "a pickle",
  "model-q4.gguf": "other weights",
  "tokenizer.json": '{"model": {}}',
  "tokenizer_config.json": '{"bos_token": "a"}',
};
const INDEX = JSON.stringify({
  weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" },
});
const SHARDED = {
  "config.json": "{}",
  "model.safetensors.index.json": INDEX,
  "model-00001-of-00002.safetensors": "shard one",
  "model-00002-of-00002.safetensors": "shard two",
  "consolidated.safetensors": "the same weights again",
};
const COMMIT = commitOf(FILES);
const OLD = "0".repeat(40);

const REPOSITORIES: Record<string, Repository> = {
  "team/small": { files: FILES, revisions: { main: COMMIT, "refs/pr/1": COMMIT, v1: OLD } },
  "team/sharded": { files: SHARDED },
  "team/broken": { files: { "config.json": "{}", "model.safetensors.index.json": INDEX } },
  "team/pickle": { files: { "config.json": "{}", "pytorch_model.bin": "a pickle" } },
  "team/gguf": { files: { "README.md": "", "model.gguf": "weights" } },
  "team/gated": { files: FILES, gated: true },
  "team/private": { files: FILES, isPrivate: true },
  "team/adapter": {
    files: { "adapter_config.json": "{}", "adapter_model.safetensors": "tensors", "README.md": "" },
  },
};

let hub: HubServer;
let cache: string;
const roots: string[] = [];

before(async () => {
  hub = await HubServer.start(REPOSITORIES);
});
describe("models by name", () => {
  beforeEach(() => {
    cache = newFolder();
    hub.requests.length = 0;
    hub.faults = [];
  });
  after(async () => {
    await hub[Symbol.asyncDispose]();
    for (const root of roots) rmSync(root, { recursive: true, force: true });
  });

  function newFolder(): string {
    roots.push(mkdtempSync(join(tmpdir(), "hub-")));
    return roots.at(-1)!;
  }

  const load = (name: string, options: DownloadOptions = {}) =>
    // prettier-ignore
    downloadModel(name, { endpoint: hub.endpoint, cache, offline: false, retries: 2, pauseMs: 1, ...options });

  const fault = (path: RegExp, what: Omit<Fault, "path" | "times">, times = 1): void =>
    void hub.faults.push({ path, times, ...what });

  const blobs = (owner = "models--team--small"): string[] => readdirSync(join(cache, owner, "blobs")).sort();

  describe("a model by name", () => {
    test("is the files that are needed, at the places where Python's cache has them", async () => {
      const { directory, commit } = await load("team/small");
      assert.equal(commit, COMMIT);
      const own = join(cache, "models--team--small");
      assert.equal(directory, join(own, "snapshots", COMMIT));
      assert.equal(readFileSync(join(own, "refs/main"), "utf8"), COMMIT);
      const wanted = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] as const; // prettier-ignore
      assert.deepEqual(readdirSync(directory).sort(), wanted);
      for (const path of wanted) {
        const etag = etagOf(path, FILES[path]);
        assert.equal(readlinkSync(join(directory, path)), `../../blobs/${etag}`);
        assert.deepEqual(readFileSync(join(directory, path)), Buffer.from(FILES[path]));
      }
      assert.deepEqual(blobs(), [...new Set(wanted.map((path) => etagOf(path, FILES[path])))].sort());
      assert.deepEqual(readdirSync(join(cache, ".locks/models--team--small")), []);
    });

    test("is loaded by plain HTTP: xet's storage is never asked for", async () => {
      await load("team/small");
      for (const { path, headers } of hub.requests) {
        assert.doesNotMatch(path, /xet/);
        assert.doesNotMatch(headers.accept ?? "", /xet/);
      }
      assert.ok(
        hub.requests.some(({ host, path }) => host === "storage" && path.endsWith("model.safetensors")),
      );
    });

    test("is not loaded again: what is there costs two questions, a whole commit none", async () => {
      await load("team/small");
      hub.requests.length = 0;
      await load("team/small");
      assert.deepEqual(hub.loaded, []);
      assert.ok(hub.requests.every(({ path }) => path.startsWith("/api/models/team/small/")));
      hub.requests.length = 0;
      assert.equal((await load(`team/small@${COMMIT}`)).commit, COMMIT);
      assert.deepEqual(hub.requests, []);
    });

    test("has revisions: branches, tags, pull requests, commits", async () => {
      for (const [revision, commit] of [
        ["v1", OLD],
        ["refs/pr/1", COMMIT],
      ] as const) {
        // prettier-ignore
        assert.equal((await load(`team/small@${revision}`)).commit, commit);
        assert.equal(readFileSync(join(cache, "models--team--small/refs", revision), "utf8"), commit);
      }
    });

    test("may be in shards, of which the index names what is loaded", async () => {
      const { directory } = await load("team/sharded");
      const { "consolidated.safetensors": _, ...wanted } = SHARDED;
      assert.deepEqual(readdirSync(directory).sort(), Object.keys(wanted).sort());
    });

    test("may be an adapter, or only a config", async () => {
      const adapter = await load("team/adapter", { part: "adapter" });
      assert.deepEqual(readdirSync(adapter.directory).sort(), [
        "adapter_config.json",
        "adapter_model.safetensors",
      ]);
      const { directory } = await load("team/small", { part: "config" });
      assert.deepEqual(readdirSync(directory), ["config.json"]);
    });

    test("tells its progress, up to the size of each file", async () => {
      const seen = new Map<string, number>();
      await load("team/small", {
        onProgress: ({ file, loaded, size }) => (assert.ok(loaded <= size), seen.set(file, loaded)),
      });
      assert.equal(seen.get("model.safetensors"), WEIGHTS.byteLength);
      assert.equal(seen.size, 5);
    });
  });

  describe("a cache", () => {
    test("that Python has written is used, also offline", async () => {
      const own = join(cache, "models--team--small");
      const at = join(own, "snapshots", OLD);
      for (const folder of [at, join(own, "blobs"), join(own, "refs")])
        mkdirSync(folder, { recursive: true });
      for (const path of ["config.json", "model.safetensors", "tokenizer.json"] as const) {
        writeFileSync(join(own, "blobs", etagOf(path, FILES[path])), FILES[path]);
        symlinkSync(`../../blobs/${etagOf(path, FILES[path])}`, join(at, path));
      }
      writeFileSync(join(own, "refs/main"), OLD);
      assert.deepEqual(await load("team/small", { offline: true }), { directory: at, commit: OLD });
      assert.deepEqual(hub.requests, []);
      await load("team/small"); // online, the branch has moved on: contents that are there are linked
      assert.ok(!hub.loaded.some((one) => one.startsWith("model.safetensors")));
    });

    test("that lacks a part is no model offline: what is missing is named", async () => {
      await assert.rejects(
        load("team/small", { offline: true }),
        /^HubError: team\/small: HF_HUB_OFFLINE is set, .* does not have it/,
      );
      await load("team/small", { part: "config" });
      await assert.rejects(
        load("team/small", { offline: true }),
        /does not have model\.safetensors; unset it .* HF_HUB_CACHE/,
      );
      await load("team/sharded");
      rmSync(
        join(cache, "models--team--sharded/snapshots", commitOf(SHARDED), "model-00002-of-00002.safetensors"),
      );
      await assert.rejects(load("team/sharded", { offline: true }), /does not have model-00002-of-00002/);
    });

    test("stands in for a hub that cannot be reached, and that is said", async () => {
      const other = await HubServer.start({});
      const closed = other.endpoint;
      await other[Symbol.asyncDispose]();
      await load("team/small");
      const notes: string[] = [];
      const options = { retries: 0, onNote: (note: string) => notes.push(note) };
      const { commit } = await load("team/small", { ...options, endpoint: closed });
      fault(/./, { status: 503 }, 9);
      assert.equal((await load("team/small", options)).commit, commit);
      assert.match(
        notes.join("\n"),
        /small: the hub cannot be asked \(ECONNREFUSED\): using the copy in the cache, commit [0-9a-f]{8}/,
      );
      assert.match(notes.join("\n"), /the hub cannot be asked \(status 503\): using the copy/);
      await assert.rejects(
        load("team/sharded", { retries: 0, endpoint: closed }),
        /cannot be reached \(ECONNREFUSED\)/,
      );
    });

    test("that cannot be written is named, with what to set", async () => {
      const file = join(cache, "file");
      writeFileSync(file, "");
      await assert.rejects(
        load("team/small", { cache: join(file, "hub") }),
        /file\/hub cannot be written \(ENOTDIR\): set HF_HOME/,
      );
    });

    test("is filled once by two processes at once", async () => {
      fault(/storage:.*model\.safetensors/, { cut: 100_000 }); // so that the first is busy for a while
      const env = {
        ...process.env,
        HF_ENDPOINT: hub.endpoint,
        HF_HUB_CACHE: cache,
        HF_HUB_OFFLINE: "",
        HF_TOKEN: "",
      };
      const script = typescriptProgram(join(import.meta.dirname, "support/hub-loader.ts"));
      const run = (): Promise<string> =>
        new Promise((resolve) => {
          let out = "";
          spawn(process.execPath, [...script, "team/small"], { env, stdio: ["ignore", "pipe", "inherit"] })
            .on("close", () => resolve(out))
            .stdout.on("data", (data: Buffer) => (out += data.toString()));
        });
      const [one, two] = await Promise.all([run(), run()]);
      assert.equal(one, join(cache, "models--team--small/snapshots", COMMIT));
      assert.equal(two, one);
      assert.deepEqual(hub.loaded.filter((file) => file.startsWith("model.safetensors")), ["model.safetensors 100000", "model.safetensors 200000"]); // prettier-ignore
    });

    test("is filled once by two loads at once, one of which waits; the lock of an ended process is taken", async () => {
      const notes: string[] = [];
      fault(/storage:.*model\.safetensors/, { cut: 100 });
      await Promise.all(
        [1, 2].map(() => load("team/small", { pauseMs: 100, onNote: (note) => notes.push(note) })),
      );
      assert.equal(hub.loaded.filter((one) => one.startsWith("model.safetensors")).length, 2); // one, cut and taken up
      assert.match(notes[0] ?? "", new RegExp(`process ${process.pid} on .* is loading .*: waiting for it`));
      for (const owner of [
        { pid: 2 ** 22 + 1, host: hostname() },
        { pid: 1, host: "elsewhere" },
      ]) {
        cache = newFolder();
        const lock = join(
          cache,
          ".locks/models--team--small",
          `${etagOf("model.safetensors", WEIGHTS)}.tiedlora.lock`,
        );
        mkdirSync(dirname(lock), { recursive: true });
        writeFileSync(lock, JSON.stringify(owner));
        await load("team/small", { staleMs: 300 });
      }
    });
  });

  describe("a download", () => {
    test("that is cut goes on where it was, in the same process", async () => {
      fault(/storage:.*model\.safetensors/, { cut: 100_000 });
      fault(/storage:.*model\.safetensors/, { cut: 50_000 });
      const { directory } = await load("team/small");
      assert.deepEqual(readFileSync(join(directory, "model.safetensors")), WEIGHTS);
      const sent = hub.requests.filter(
        ({ path, host }) => host === "storage" && path.endsWith("model.safetensors"),
      );
      assert.deepEqual(sent.map(({ headers }) => headers.range), [undefined, "bytes=100000-", "bytes=150000-"]); // prettier-ignore
    });

    test("that is given up is no file, and another process goes on with it", async () => {
      fault(/storage:.*model\.safetensors/, { cut: 100_000 });
      fault(/storage:.*model\.safetensors/, { status: 500 }, 9);
      await assert.rejects(load("team/small"), /out of order \(status 500\)/);
      assert.ok(
        !readdirSync(join(cache, "models--team--small/snapshots", COMMIT)).includes("model.safetensors"),
      );
      assert.ok(!blobs().includes(etagOf("model.safetensors", WEIGHTS)));
      await assert.rejects(load("team/small", { offline: true }), /does not have/);
      hub.faults = [];
      hub.requests.length = 0;
      const { directory } = await load("team/small");
      assert.deepEqual(hub.loaded, ["model.safetensors 200000"]);
      assert.deepEqual(readFileSync(join(directory, "model.safetensors")), WEIGHTS);
    });

    test("that is cut again and again says how far it came", async () => {
      fault(/storage:.*model\.safetensors/, { cut: 10 });
      fault(/storage:.*model\.safetensors/, { cut: 0 }, 9);
      await assert.rejects(
        load("team/small"),
        /model\.safetensors was cut again and again .* at 10 of 300000 bytes; these are kept/,
      );
    });

    test("on which nothing comes any more is tried again", async () => {
      fault(/storage:.*model\.safetensors/, { stall: 1000 });
      const { directory } = await load("team/small", { timeoutMs: 300 });
      assert.deepEqual(readFileSync(join(directory, "model.safetensors")), WEIGHTS);
    });

    test("from a server without ranges begins anew", async () => {
      fault(/storage:.*model\.safetensors/, { cut: 1000 });
      fault(/storage:.*model\.safetensors/, { whole: true });
      const { directory } = await load("team/small");
      assert.deepEqual(readFileSync(join(directory, "model.safetensors")), WEIGHTS);
    });

    test("of another length is refused, and nothing of it kept", async () => {
      fault(/storage:.*model\.safetensors/, { change: (content) => content.subarray(1) });
      await assert.rejects(
        load("team/small"),
        /model\.safetensors comes with 299999 bytes; expected 300000 bytes, by the listing/,
      );
      await load("team/small");
      assert.equal(hub.loaded.at(-1), "model.safetensors 300000");
    });

    test("of changed content is refused, large files and small ones", async () => {
      const change = (content: Buffer): Buffer => Buffer.from(content).fill(1, 1, 2);
      for (const path of ["config.json", "model.safetensors"] as const) {
        hub.faults = [];
        fault(new RegExp(`:.*/(cached|resolve)/.*${path}`), { change }, 2);
        await assert.rejects(
          load("team/small"),
          new RegExp(
            `the content of ${path} has the digest [0-9a-f]+; expected ${etagOf(path, FILES[path])}`,
          ),
        );
        assert.ok(!blobs().includes(etagOf(path, FILES[path])));
      }
      hub.faults = [];
      const { directory } = await load("team/small");
      assert.deepEqual(readFileSync(join(directory, "model.safetensors")), WEIGHTS);
    });

    test("whose rest from earlier is wrong begins anew", async () => {
      const blob = join(cache, "models--team--small/blobs", etagOf("model.safetensors", WEIGHTS));
      for (const rest of [Buffer.alloc(1000, 1), Buffer.alloc(400_000)]) {
        rmSync(cache, { recursive: true });
        mkdirSync(dirname(blob), { recursive: true });
        writeFileSync(`${blob}.tiedlora.incomplete`, rest);
        await load("team/small");
        assert.deepEqual(readFileSync(blob), WEIGHTS);
      }
    });

    test("waits as long as the hub asks, and a few times", async () => {
      fault(/hub:\/api/, { status: 429, headers: { "Retry-After": "1" } });
      fault(/hub:.*resolve/, { status: 503 }, 2);
      const begin = performance.now();
      await load("team/small");
      assert.ok(performance.now() - begin > 990);
      fault(/hub:\/api/, { status: 429 }, 9);
      await assert.rejects(
        load("team/sharded"),
        /too many requests .* \(status 429\): wait some minutes, or set HF_TOKEN/,
      );
    });

    test("that is aborted ends with the reason, and is kept", async () => {
      const abort = new AbortController();
      fault(/storage:.*model\.safetensors/, { stall: 1000 });
      const onProgress = ({ loaded }: { loaded: number }): void =>
        void (loaded === 1000 && abort.abort(new Error("enough")));
      await assert.rejects(load("team/small", { signal: abort.signal, onProgress }), /enough/);
      await load("team/small");
      assert.deepEqual(hub.loaded.at(-1), "model.safetensors 299000");
    });
  });

  describe("a hub refuses", () => {
    const REFUSALS: Readonly<Record<string, readonly [name: string, token: string | undefined, message: RegExp]>> = {
    "an unknown model": ["team/none", undefined, /team\/none: there is no such model on http:.* \(status 401\), nor a directory of that name here; check the spelling, or, for a private model, set HF_TOKEN/],
    "an unknown model, with a token": ["team/none", TOKEN, /there is no such model .* \(status 404\)/],
    "an unknown revision": ["team/small@v9", undefined, /small@v9: there is no revision "v9"; expected a branch, a tag or a commit, as listed at http:.*team\/small\/commits/],
    "a gated model": ["team/gated", undefined, /access to this model has to be granted \(status 401\): ask for it at http:\S+\/team\/gated; then set HF_TOKEN/],
    "a gated model to another account": ["team/gated", "hf_other", /\(status 403\): ask for it at .*; the account of the token in use has no access/],
    "a private model": ["team/private", undefined, /for a private model, set HF_TOKEN/],
    "a wrong token": ["team/small", "wrong", /does not accept the token \(status 401\): make a new one at http:.*\/settings\/tokens/],
    "weights that are pickles": ["team/pickle", undefined, /team\/pickle: its weights are not safetensors \(it has config\.json, pytorch_model\.bin\)/],
    "a repository without a model": ["team/gguf", undefined, /there is no config\.json, only README\.md, model\.gguf; expected a model in the format of transformers/],
    "a shard that is not there": ["team/broken", undefined, /names model-00001-of-00002\.safetensors, which is not in the repository/],
    "what is no name": ["team", undefined, /"team" is not a name on the hub; expected owner\/name or owner\/name@revision/],
  }; // prettier-ignore
    for (const [what, [name, token, message]] of Object.entries(REFUSALS))
      test(what, async () => {
        const options = token === undefined ? {} : { token };
        await assert.rejects(load(name, options), (error) => error instanceof HubError && message.test(error.message) ? true : assert.fail(String(error))); // prettier-ignore
      });

    test("another protocol is not taken for a hub's", async () => {
      fault(/hub:\/api.*revision/, { status: 200 });
      await assert.rejects(
        load("team/small"),
        /answers with .* as the commit; expected the protocol of the Hugging Face hub/,
      );
      await assert.rejects(
        load("team/small", { endpoint: "mirror" }),
        /HF_ENDPOINT mirror: expected an address/,
      );
    });

    test("a token goes to the hub alone, and opens what it has access to", async () => {
      await load("team/gated", { token: TOKEN });
      await load("team/private", { token: TOKEN });
      for (const { host, headers } of hub.requests)
        assert.equal(headers.authorization, host === "hub" ? `Bearer ${TOKEN}` : undefined);
    });
  });

  test("settings come from the variables of Python's library", () => {
    const home = newFolder();
    writeFileSync(join(home, "token"), "hf_file\n");
    const of = (env: Record<string, string>) => hubSettings({ HF_HOME: home, ...env }); // prettier-ignore
    assert.deepEqual(of({}), {
      endpoint: undefined,
      token: "hf_file",
      cache: join(home, "hub"),
      offline: false,
    });
    assert.equal(of({ HF_TOKEN: "hf_own" }).token, "hf_own");
    assert.equal(of({ HF_TOKEN: " " }).token, "hf_file");
    assert.equal(of({ HF_TOKEN: "hf_own", HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }).token, undefined);
    assert.equal(of({ HF_TOKEN_PATH: join(home, "none") }).token, undefined);
    assert.equal(of({ HF_HUB_CACHE: "/elsewhere" }).cache, "/elsewhere");
    assert.equal(of({ HF_ENDPOINT: "https://mirror" }).endpoint, "https://mirror");
    assert.equal(of({ HF_HUB_OFFLINE: "1" }).offline, true);
    assert.equal(of({ HF_HUB_OFFLINE: "0", TRANSFORMERS_OFFLINE: "" }).offline, false);
    assert.match(hubSettings({ XDG_CACHE_HOME: "/c" }).cache, /^\/c\/huggingface\/hub$/);
    assert.match(hubSettings({}).cache, /[^~]\/\.cache\/huggingface\/hub$/);
  });

  test("names are told from paths", () => {
    for (const name of ["a/b", "HuggingFaceTB/SmolLM2-135M", "a_1/b.c"])
      assert.deepEqual(parseHubName(name), { id: name, revision: "main", pinned: false });
    assert.deepEqual(parseHubName("a/b@refs/pr/1"), { id: "a/b", revision: "refs/pr/1", pinned: true });
    for (const path of [
      "gpt2",
      "./a/b",
      "../b",
      "/a/b",
      "a/b/c",
      "a/b/",
      "a//b",
      "a/..",
      "a/b@",
      "a/b@../x",
      "a/b@/x",
      "a/b@x/.",
      "a--b/c",
      "a b/c",
      "",
      "C:/x",
    ])
      // prettier-ignore
      assert.equal(parseHubName(path), null, path);
  });

  test("a directory here comes first, and a path into a folder that exists is no name", async () => {
    const here = process.cwd();
    const folder = newFolder();
    mkdirSync(join(folder, "team/small"), { recursive: true });
    process.chdir(folder);
    try {
      assert.equal(await modelDirectory("team/small", { endpoint: hub.endpoint, cache }), "team/small");
      assert.deepEqual(hub.requests, []);
      assert.equal(await isOnHub("team/smal"), false);
      assert.equal(await isOnHub("team/smal@main"), true);
      assert.equal(await isOnHub("other/small"), true);
    } finally {
      process.chdir(here);
    }
  });

  test("a model is loaded by its name, and so are its config and tokenizer alone", async () => {
    const folder = newFolder();
    const device = reference();
    const config = configFrom({
      model_type: "gpt2",
      vocab_size: 257,
      n_embd: 8,
      n_layer: 1,
      n_head: 1,
      n_positions: 16,
    });
    const model = createModel(config, { device, seed: 1 });
    await saveModel(model, folder);
    const names = readdirSync(folder);
    hub.repositories["team/real"] = {
      files: {
        ...Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))])),
        ...byteTokenizerFiles(),
      },
    };
    const before = { ...process.env };
    Object.assign(process.env, {
      HF_ENDPOINT: hub.endpoint,
      HF_HUB_CACHE: cache,
      HF_HUB_OFFLINE: "0",
      HF_TOKEN: TOKEN,
    });
    try {
      assert.deepEqual((await loadTokenizer("team/real")).encode("ab"), [97, 98]);
      assert.equal((await loadConfig("team/real")).hidden, 8);
      assert.ok(!hub.loaded.some((one) => one.startsWith("model.safetensors")));
      const { model: loaded } = await loadPretrained("team/real", { device });
      for (const [path, parameter] of model.stateDict())
        assert.deepEqual(await loaded.stateDict().get(path)!.toArray(), await parameter.toArray(), path);
    } finally {
      process.env = before;
      device.close();
    }
  });

  test("SHA-256 of bytes in pieces is that of Node's crypto", () => {
    for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 70_001]) {
      const bytes = WEIGHTS.subarray(0, length);
      for (const step of [1, 7, 64, 1000, 100_000]) {
        const sha = new Sha256();
        for (let at = 0; at < length; at += step) sha.update(bytes.subarray(at, at + step));
        assert.equal(sha.hex(), createHash("sha256").update(bytes).digest("hex"), `${length} by ${step}`);
      }
    }
  });
});
