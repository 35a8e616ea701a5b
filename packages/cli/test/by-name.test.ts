/** Commands on models and adapters of a hub, by name; the hub is a server of the test. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, after, before, beforeEach, test } from "node:test";
import { commitOf, HubServer, type Repository } from "../../models/test/support/hub-server.ts";
import { tiedlora } from "./support/command.ts";
import { temporary, writeExamples, writeModel } from "./support/model-directory.ts";

const folder = temporary();
const at = (...names: string[]): string => join(folder, ...names);

const filesOf = (directory: string): Record<string, Uint8Array> =>
  Object.fromEntries(readdirSync(directory).flatMap((name) => (/\.(json|safetensors)$/.test(name) ? [[name, readFileSync(join(directory, name))]] : []))); // prettier-ignore

let hub: HubServer;
let tiny: Repository["files"];
let commit: string;
const environment = { ...process.env };

before(async () => {
  await writeModel(at("model"), { max_position_embeddings: 512 });
  writeExamples(at("train.jsonl"));
  tiny = filesOf(at("model"));
  commit = commitOf(tiny);
  hub = await HubServer.start({ "team/tiny": { files: tiny } });
  const settings = {
    HF_ENDPOINT: hub.endpoint,
    HF_HUB_CACHE: at("cache"),
    HF_HUB_OFFLINE: "0",
    HF_TOKEN: "",
  };
  Object.assign(process.env, settings);
});
/** Flags of generate: a few tokens after a prompt. */
const SAYING = ["--prompt", "say red0", "--backend", "reference", "--max-tokens", "3"];

describe("models by name on the command line", () => {
  beforeEach(() => void (hub.requests.length = 0));
  after(async () => {
    process.env = environment;
    await hub[Symbol.asyncDispose]();
  });

  const train = (...more: string[]) => // prettier-ignore
  tiedlora("train", "--data", at("train.jsonl"), ..."--steps 2 --batch 2 --seq 32 --rank 2 --backend reference".split(" "), ...more); // prettier-ignore

  const read = (...names: string[]): Record<string, unknown> =>
    JSON.parse(readFileSync(at(...names), "utf8")) as Record<string, unknown>;

  test("a model is loaded by its name, a line for each file, and once", async () => {
    const flags = ["--model", "team/tiny", ...SAYING];
    const first = await tiedlora("generate", ...flags);
    assert.equal(first.code, 0, first.info);
    assert.match(
      first.info,
      /loading config\.json, \d+ kB \(1 of 4\)\n.*loading model\.safetensors, \d+ kB \(\d of 4\)/s,
    );
    const again = await tiedlora("generate", ...flags);
    assert.deepEqual([again.code, again.info, again.out], [0, "", first.out]);
  });

  test("params and validate load no weights", async () => {
    process.env["HF_HUB_CACHE"] = at("cache-2");
    const params = await tiedlora("params", "--model", "team/tiny", "--method", "tl6", "--rank", "2");
    assert.match(params.out, /tl6, rank 2, on team\/tiny: 372 trainable/);
    const valid = await tiedlora("validate", "--model", "team/tiny", "--data", at("train.jsonl"), "--seq", "32", "--out", at("o")); // prettier-ignore
    assert.match(valid.info, /valid: tl6 rank 8/);
    assert.ok(!hub.loaded.some((one) => one.startsWith("model.safetensors")));
    process.env["HF_HUB_CACHE"] = at("cache");
  });

  test("a run keeps the commit: it is resumed on the same weights, and its adapter names them", async () => {
    const first = await train("--model", "team/tiny", "--out", at("run"));
    assert.equal(first.code, 0, first.info);
    assert.match(readFileSync(at("run/run.yaml"), "utf8"), new RegExp(`^model: team/tiny@${commit}$`, "m"));
    const config = read("run/adapter_config.json");
    assert.deepEqual([config["base_model_name_or_path"], config["revision"]], ["team/tiny", commit]);

    const moved = { ...tiny, "config.json": "{}" }; // the branch goes on to something that is no model
    hub.repositories["team/tiny"] = { files: tiny, revisions: { main: commitOf(moved), old: commit } };
    const resumed = await train("--resume", "--model", "team/tiny", "--steps", "3", "--out", at("run"));
    assert.equal(resumed.code, 0, resumed.info);
    const refused = await train("--resume", "--model", "team/tiny@v2", "--out", at("run"));
    assert.match(refused.info, /--model team\/tiny@v2: the run in .* was started with team\/tiny@/);
    const { code, info } = await tiedlora("generate", "--adapter", at("run"), "--prompt", "a", "--backend", "reference", "--max-tokens", "2"); // prettier-ignore
    assert.equal(code, 0, info);
    hub.repositories["team/tiny"] = { files: tiny };

    const out = await tiedlora(
      "export",
      "--adapter",
      at("run"),
      "--format",
      "peft-lora",
      "--out",
      at("peft"),
    );
    assert.equal(out.code, 0, out.info);
    assert.deepEqual(read("peft/adapter_config.json")["revision"], commit);
  });

  test("an adapter has a name, too", async () => {
    assert.equal((await train("--model", "team/tiny", "--out", at("named"))).code, 0);
    hub.repositories["team/adapter"] = { files: filesOf(at("named")) };
    const flags = [...SAYING, "--temperature", "1"];
    const byName = await tiedlora("generate", "--adapter", "team/adapter", ...flags);
    const byPath = await tiedlora("generate", "--adapter", at("named"), ...flags);
    assert.deepEqual([byName.code, byName.out], [0, byPath.out], byName.info);
  });

  test("--init-from takes the name of an adapter, and the run keeps its commit", async () => {
    const own = filesOf(at("named"));
    hub.repositories["team/start"] = { files: own };
    const flags = ["--model", "team/tiny", "--init-from", "team/start", "--out", at("further")];
    const { code, info } = await train(...flags);
    assert.equal(code, 0, info);
    assert.match(info, /starting from the adapter in/);
    const name = `team/start@${commitOf(own)}`;
    assert.match(readFileSync(at("further/run.yaml"), "utf8"), new RegExp(`^init-from: ${name}$`, "m"));
    const resumed = await train("--resume", "--steps", "3", ...flags);
    assert.equal(resumed.code, 0, resumed.info);
    assert.match(readFileSync(at("further/run.yaml"), "utf8"), new RegExp(`^init-from: ${name}$`, "m"));
    const missing = await train("--model", "team/tiny", "--init-from", "team/none", "--out", at("none"));
    assert.deepEqual([missing.code, /team\/none/.test(missing.info)], [1, true], missing.info);
  });

  test("a sweep's model may have a name: it is loaded once, for all processes", async () => {
    process.env["HF_HUB_CACHE"] = at("cache-3");
    const spec = { name: "s", out: at("sweep"), on: { model: "team/tiny", tasks: ["choice"], seq: 512 }, vary: { method: ["tl6"], rank: [2], seed: [0] }, train: { steps: 1, batch: 2 }, evaluate: { valid: 2, test: 2 } }; // prettier-ignore
    writeFileSync(at("sweep.yaml"), JSON.stringify(spec));
    const { code, info } = await tiedlora(
      "sweep",
      at("sweep.yaml"),
      "--backend",
      "reference",
      "--parallel",
      "1",
    );
    assert.equal(code, 0, info);
    assert.equal(
      hub.requests.filter(({ path }) => path.startsWith("/api/models/team/tiny/revision")).length,
      1,
    );
    process.env["HF_HUB_CACHE"] = at("cache");
  });

  test("what is neither here nor there is named, and a path into a folder that is here is a path", async () => {
    const unknown = await train("--model", "team/none", "--out", at("none"));
    assert.equal(unknown.code, 1);
    assert.match(
      unknown.info,
      /team\/none: there is no such model on http:.*, nor a directory of that name here/,
    );
    const here = process.cwd();
    mkdirSync(at("team"));
    process.chdir(folder);
    try {
      const path = await train("--model", "team/tiny", "--out", at("none"));
      assert.equal(path.code, 2);
      assert.match(path.info, /--model team\/tiny: there is no such directory; expected .*, or, since a directory team is here, team\/tiny@main for the hub's/); // prettier-ignore
      const pinned = await train("--model", "team/tiny@main", "--out", at("pinned"));
      assert.equal(pinned.code, 0, pinned.info);
    } finally {
      process.chdir(here);
    }
    process.env["HF_HUB_OFFLINE"] = "1";
    const offline = await train("--model", "team/none", "--out", at("none"));
    assert.match(offline.info, /team\/none: HF_HUB_OFFLINE is set/);
    process.env["HF_HUB_OFFLINE"] = "0";
  });
});
