/** A model by its name: the page loads it from a hub, shows how far it is, can be told to stop, and says by name what went wrong. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { reference } from "@tiedlora/core";
import type { Page } from "playwright-core";
import { configFrom } from "../../../packages/models/src/config.ts";
import { createModel } from "../../../packages/models/src/load.ts";
import { modelFiles } from "../../../packages/models/src/save.ts";
import { byteTokenizerFiles } from "../../../packages/models/test/support/byte-tokenizer.ts";
import {
  commitOf,
  HubServer,
  type Repository,
  TOKEN,
} from "../../../packages/models/test/support/hub-server.ts";
import { skip } from "../../../test/support/browser.ts";
import { openPage, settled, tabTo, textOf, type } from "./support/keyboard.ts";
import { servePage, type ServedPage, until, violations } from "./support/page.ts";

let served: ServedPage;
let hub: HubServer;

/** The files of a Llama of two layers. */
async function tinyModel(): Promise<Record<string, string | Uint8Array>> {
  const device = reference();
  const config = configFrom({
    model_type: "llama",
    vocab_size: 257,
    hidden_size: 8,
    intermediate_size: 16,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 64,
  });
  const files: Record<string, string | Uint8Array> = byteTokenizerFiles();
  for (const [name, content] of modelFiles(createModel(config, { device, seed: 1 }))) {
    if (typeof content === "string" || content instanceof Uint8Array) files[name] = content;
    else {
      const pieces: Uint8Array[] = [];
      for await (const piece of content) pieces.push(Uint8Array.from(piece));
      files[name] = Buffer.concat(pieces);
    }
  }
  device.close();
  return files;
}

before(async () => {
  if (skip !== false) return;
  const files = await tinyModel();
  const revisions = { main: commitOf({ old: "" }), v1: commitOf(files) };
  hub = await HubServer.start({
    "team/small": { files, revisions } satisfies Repository,
    "team/gated": { files, gated: true },
    "team/strange": { files: { ...files, "config.json": '{"model_type":"abacus"}' } },
  });
  served = await servePage();
});

after(async () => {
  if (skip !== false) return;
  await served[Symbol.asyncDispose]();
  await hub[Symbol.asyncDispose]();
});

interface Wanted {
  readonly name: string;
  readonly revision?: string;
  readonly token?: string;
}

/** Fills the form in and sends it by the keyboard. */
async function ask(page: Page, { name, revision = "", token = "" }: Wanted): Promise<void> {
  await page.evaluate('(replies = replies.filter(({ type }) => type !== "hubEnded"))');
  await page.fill("#hub-name", name);
  await page.fill("#hub-revision", revision);
  await page.fill("#hub-token", token);
  await page.fill("#hub-endpoint", hub.endpoint);
  await page.press("#hub-name", "Enter");
}

/** Loads a model; resolves to how that ended. */
async function load(page: Page, wanted: Wanted): Promise<string> {
  await ask(page, wanted);
  return ended(page);
}

async function ended(page: Page): Promise<string> {
  await until(page, 'replies.some(({ type }) => type === "hubEnded")');
  return page.evaluate<string>('replies.find(({ type }) => type === "hubEnded").how');
}

describe("a model by its name", () => {
  beforeEach(() => {
    if (skip !== false) return;
    hub.requests.length = 0;
    hub.faults = [];
  });

  test("it becomes the base model, is kept for the next time, and can be deleted", { skip }, async () => {
    const { page, complaints } = await openPage(served);
    assert.equal(await load(page, { name: "team/small", revision: "v1" }), "loaded");
    assert.match(await textOf(page, "#base"), /^team\/small@v1: [\d,]+ parameters, 2 layers, width 8\./);
    assert.match(await textOf(page, "#hub-status"), /^loaded/);
    const files = await page.evaluate<string[]>(
      'replies.filter(({ type, loaded, size }) => type === "hubProgress" && loaded === size).map(({ file }) => file)',
    );
    assert.deepEqual([...new Set(files)].sort(), [
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    assert.ok(hub.requests.every(({ headers }) => headers.authorization === undefined));
    await type(page, "[name=steps]", "1");
    await tabTo(page, "#train");
    await page.keyboard.press("Enter");
    await settled(page, "done");
    hub.requests.length = 0;
    assert.equal(await load(page, { name: "team/small", revision: "v1" }), "loaded");
    assert.deepEqual(hub.loaded, [], "it was kept");
    await page.click("#hub-delete");
    await until(
      page,
      'document.getElementById("hub-status").textContent.startsWith("nothing of team/small@v1 is kept")',
    );
    assert.equal(await load(page, { name: "team/small", revision: "v1" }), "loaded");
    assert.equal(hub.loaded.length, 4);
    assert.deepEqual(complaints, []);
    assert.deepEqual(await violations(page), []);
    await page.close();
  });

  test(
    "what the hub refuses is said with the model's name, and a token opens a gated one",
    { skip },
    async () => {
      const { page } = await openPage(served);
      const before = await textOf(page, "#base");
      for (const [name, message] of [
        [
          "team/gated",
          /team\/gated: access to this model has to be granted \(status 401\).*; then give a token of the account/,
        ],
        [
          "team/none",
          /team\/none: there is no such model on http:\S+ \(status 401\); check the spelling, or, for a private model, give a token/,
        ],
        ["team", /"team" is not a name on the hub; expected owner\/name/],
        ["team/strange", /abacus/],
      ] as const) {
        assert.equal(await load(page, { name }), "failed");
        assert.match(await textOf(page, "#problem"), message);
        assert.equal(await textOf(page, "#hub-status"), "not loaded");
      }
      assert.equal(await textOf(page, "#base"), before, "the model from before is still there");
      assert.equal(await load(page, { name: "team/small", revision: "v9" }), "failed");
      assert.match(
        await textOf(page, "#problem"),
        /The hub gave no model.*team\/small@v9: there is no revision "v9"/s,
      );
      assert.equal(await load(page, { name: "team/gated", token: TOKEN }), "loaded");
      assert.match(await textOf(page, "#base"), /^team\/gated: /);
      assert.equal(await page.isVisible("#problem"), false);
      await page.close();
    },
  );

  test("a download can be canceled, and the next one goes on", { skip }, async () => {
    const { page, complaints } = await openPage(served);
    hub.faults.push({ path: /storage:.*model\.safetensors/, times: 1, stall: 1000 });
    await ask(page, { name: "team/small", revision: "v1" });
    await until(
      page,
      'document.getElementById("hub-status").textContent.startsWith("loading model.safetensors")',
    );
    assert.equal(await page.isVisible("#hub-progress"), true);
    assert.deepEqual(await violations(page), []);
    await page.click("#hub-cancel");
    assert.equal(await ended(page), "canceled");
    assert.match(await textOf(page, "#hub-status"), /^canceled: what has been loaded is kept/);
    assert.equal(await page.isVisible("#hub-progress"), false);
    assert.equal(await page.isVisible("#problem"), false);
    hub.requests.length = 0;
    assert.equal(await load(page, { name: "team/small", revision: "v1" }), "loaded");
    assert.deepEqual(hub.loaded.map((one) => one.split(" ")[0]), ["model.safetensors"]); // prettier-ignore
    await page.fill("#hub-name", "");
    await page.press("#hub-name", "Enter");
    assert.match(await textOf(page, "#hub-status"), /the name of a model is needed/);
    assert.equal(await page.getAttribute("#hub-name", "aria-invalid"), "true");
    assert.deepEqual(complaints, []);
    await page.close();
  });
});
