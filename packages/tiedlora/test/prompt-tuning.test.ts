/** Prompt tuning: against the same tokens in front of each row; with a cache, padding, packed rows and windows; and peft's files, both ways. */
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { bytesSource, openSafetensors } from "@tiedlora/core";
import {
  ContinuousBatch,
  type Decoder,
  generateTokens,
  KvCache,
  adaptableSpecs,
  preset,
} from "@tiedlora/models";
import * as optim from "@tiedlora/nn/optim";
import {
  adapt,
  adapterFiles,
  adaptersOf,
  countParameters,
  loadAdapterFiles,
  methodByName,
  methods,
} from "../src/index.ts";
import { asFiles, collect, randomize } from "./support/files.ts";
import { distance, IDS, logitsOf, lossOf, tinyGpt2, tinyLlama } from "./support/tiny.ts";

/** A Llama whose layers see four positions. */
const windowed = (): Decoder =>
  tinyLlama(undefined, { model_type: "mistral", sliding_window: 4, max_position_embeddings: 64 });

const [first, second] = IDS.map((row) => [...row]) as [number[], number[]];
const TOKENS = [7, 11, 7];

suite("prompt tuning", () => {
  for (const [name, make] of Object.entries({ tinyLlama, tinyGpt2, windowed })) {
    test(`with the embeddings of tokens is the same as these tokens in front, on ${name}`, async () => {
      const model = make();
      const longer = IDS.map((row) => [...TOKENS, ...row]);
      const wanted = await model.forward(longer).narrow(1, 3, 5).data();
      const mask = longer.map((row) => row.map((_, i) => (i < 4 ? 0 : 1)));
      const loss = await model.loss({ inputIds: longer, mask }).item();
      const base = await logitsOf(model);
      await adapt(model, methods.promptTuning({ tokens: [7, 11], length: 3 }));
      assert.ok(distance(await logitsOf(model), wanted) < 1e-6);
      assert.ok(distance(base, wanted) > 0.01);
      assert.deepEqual(await adaptersOf(model).disabled(() => logitsOf(model)), base);
      for (const keep of [false, true]) {
        model.checkpointing = keep;
        assert.ok(Math.abs((await lossOf(model).item()) - loss) < 1e-6);
      }
    });

    test(`answers with a cache, padding and packed rows as without, on ${name}`, async () => {
      const model = make();
      const last = async (ids: number[]): Promise<number[]> => [...(await model.forward([[...TOKENS, ...ids]]).narrow(1, ids.length + 2, 1).data())]; // prettier-ignore
      const tail = second.slice(2);
      const wanted = [...(await last([...first, 7])), ...(await last([...tail, 8]))];
      const rows = await Promise.all(IDS.map((row) => model.forward([[...TOKENS, ...row]]).narrow(1, 3, 5).data())); // prettier-ignore
      const greedy: number[][] = [];
      for (const start of [first, tail]) {
        let ids = start;
        for (let i = 0; i < 4; i++) {
          const scores = await last(ids);
          ids = [...ids, scores.indexOf(Math.max(...scores))];
        }
        greedy.push(ids.slice(start.length));
      }
      await adapt(model, methods.promptTuning({ tokens: TOKENS }));
      const cache = new KvCache(model.config, model.device, [0, 2], 6);
      cache.commit([model.forward([first, [0, 0, ...tail]], { cache })]);
      cache.reserve(1);
      const next = model.forward([[7], [8]], { cache });
      cache.commit([next]);
      assert.ok(distance(await next.data(), wanted) < 1e-5);
      const shown = { attentionMask: [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]] }; // prettier-ignore
      const masked = model.forward([[...first, 7], [0, 0, ...tail, 8]], shown).narrow(1, 5, 1); // prettier-ignore
      assert.ok(distance(await masked.data(), wanted) < 1e-5);
      const segments = [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]];
      const packed = await model.forward([[...first, ...second]], { segments }).data();
      assert.ok(distance(packed, rows.flatMap((row) => [...row])) < 1e-5); // prettier-ignore
      const tokens: number[][] = [[], []];
      for await (const step of generateTokens(model, [first, tail], { maxTokens: 4, stopTokens: [] }))
        step.forEach((token, row) => tokens[row]!.push(token!));
      assert.deepEqual(tokens, greedy);
      const batch = new ContinuousBatch(model);
      const together = await Promise.all(
        [first, tail].map(async (prompt) => {
          const taken: number[] = [];
          const request = { maxTokens: 4, stopTokens: [], adapter: "default" };
          for await (const { token } of batch.generate(prompt, request)) taken.push(token);
          return taken;
        }),
      );
      assert.deepEqual(together, greedy);
    });
  }

  test("has length · width parameters, trains these alone, and comes back from peft's files", async () => {
    const counted = countParameters(
      adaptableSpecs(preset("llama-2-7b")!),
      methods.promptTuning({ length: 20 }),
    );
    assert.equal(counted.trainable, 20 * 4096);
    for (const make of [tinyLlama, tinyGpt2]) {
      const model = make();
      const before = await model.parameters()[0]!.data();
      const adapter = await adapt(model, methods.promptTuning({ length: 4 }), { seed: 2 });
      const optimizer = optim.adamW(adapter.parameters(), { lr: 0.03 });
      const start = await lossOf(model).item();
      for (let step = 0; step < 4; step++) optimizer.step(lossOf(model));
      assert.ok((await lossOf(model).item()) < start);
      assert.deepEqual(await model.parameters()[0]!.data(), before);
      const files = await collect(adapterFiles(adapter, "peft"));
      const bytes = files.get("adapter_model.safetensors") as Uint8Array;
      const { entries } = await openSafetensors(bytesSource(bytes, "prompt"));
      const shapes = [...entries].map(([name, { shape }]) => [name, [...shape]]);
      assert.deepEqual(shapes, [["prompt_embeddings", [4, 8]]]);
      const config = JSON.parse(files.get("adapter_config.json") as string) as Record<string, unknown>;
      const wanted = { peft_type: "PROMPT_TUNING", num_virtual_tokens: 4, token_dim: 8, num_layers: 3, num_transformer_submodules: 1 }; // prettier-ignore
      for (const [field, value] of Object.entries(wanted)) assert.deepEqual(config[field], value, field);
      for (const format of ["peft", "native"] as const) {
        const again = make();
        const loaded = await loadAdapterFiles(again, asFiles(await collect(adapterFiles(adapter, format))));
        assert.deepEqual(await logitsOf(again), await logitsOf(model));
        assert.deepEqual(await collect(adapterFiles(loaded, "peft")), files);
      }
    }
  });

  test("acts beside another adapter, whose updates its vectors pass through too", async () => {
    const model = tinyLlama();
    randomize(adapt(model, methods.lora({ rank: 2 }), { name: "other" }), 3, 0.5);
    const longer = IDS.map((row) => [...TOKENS, ...row]);
    const wanted = await model.forward(longer).narrow(1, 3, 5).data();
    await adapt(model, methods.promptTuning({ tokens: TOKENS }));
    assert.ok(distance(await logitsOf(model), wanted) < 1e-5);
  });

  test("is refused where it cannot be", async () => {
    const model = tinyLlama();
    assert.throws(() => methods.promptTuning({ tokens: [] }), /tokens/);
    assert.throws(() => methods.promptTuning({ length: 0 }), /length/);
    for (const name of ["prompt-tuning", "prefix-tuning", "norm-tuning", "full"] as const)
      assert.throws(() => methodByName(name, { dropout: 0.1 }), /dropout 0.1 given, and the method reads no input/); // prettier-ignore
    await assert.rejects(async () => adapt(model, methods.promptTuning({ tokens: [17] })), /token 17 given; the vocabulary has 17/); // prettier-ignore
    const adapter = await adapt(model, methods.promptTuning({ length: 2 }));
    await assert.rejects(adaptersOf(model).merge(), /vectors in front of each sequence, which no weight can hold; keep the adapter/); // prettier-ignore
    const mixed = (): unknown => adaptersOf(model).mixed(["default", "__base__"], () => model.forward(IDS));
    assert.throws(mixed, /puts vectors in front of all rows of a batch: it cannot be mixed/);
    assert.throws(() => adapterFiles(adapter, "peft-lora"), /has no update of the form B A/);
    const files = await collect(adapterFiles(adapter, "peft"));
    const wide = tinyLlama(model.device, { hidden_size: 16 });
    await assert.rejects(loadAdapterFiles(wide, asFiles(files)), /shape \[2, 8\]; expected \[2, 16\]/);
    adapter.detach();
    const elsewhere = async (): Promise<unknown> =>
      adapt(model, methods.promptTuning({ target: ["q_proj"] }));
    await assert.rejects(elsewhere, /q_proj is not the input embedding; leave out the target/);
    const dynamic = tinyLlama(model.device, {
      max_position_embeddings: 8,
      head_dim: 4,
      rope_scaling: { rope_type: "dynamic", factor: 2 },
    });
    await adapt(dynamic, methods.promptTuning({ length: 2 }));
    assert.throws(() => dynamic.forward(IDS, { segments: IDS }), /do not pack them/);
    const embeddings = adapter.parameters()[0]!;
    assert.throws(
      () => model.hidden(IDS, { embeddings }),
      /embeddings: \[2, 8\] was given; need \[2, 5, 8\]/,
    );
  });
});
