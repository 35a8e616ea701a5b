import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { FACTOR_NAMES, init, methods, tiedLora, type FactorName } from "../src/index.ts";

suite("the zero-start rule", () => {
  test("holds for the defaults of all 15 sets of trained factors", () => {
    for (let bits = 1; bits < 16; bits++) {
      const trained = FACTOR_NAMES.filter((_, bit) => bits & (1 << bit));
      const { factors } = tiedLora({ trained });
      const zero = FACTOR_NAMES.filter((name) => factors[name]?.init.zero);
      assert.equal(zero.length, 1, trained.join());
      assert.ok(trained.includes(zero[0]!), `${zero[0]} is trained`);
    }
  });

  test("refuses a start without a zero, since the model would change before the first step", () => {
    assert.throws(() => methods.tl6({ init: { B: init.normal() } }), {
      message: /tl6: no factor starts at zero.*start one of the trained factors \(v, B, u, A\) at zero/,
    });
  });

  test("refuses two zeros, since neither would ever get a gradient", () => {
    assert.throws(() => methods.tl6({ init: { B: init.zeros(), v: init.zeros() } }), {
      message: /v, B all start at zero.*init: \{ B: init\.normal\(\) \}/,
    });
  });

  test("refuses a zero that is frozen, since the update would stay zero", () => {
    assert.throws(() => methods.tl1({ init: { B: init.zeros() } }), {
      message: /tl1: B starts at zero and is frozen/,
    });
  });

  test("counts given values and constants that are zero", () => {
    assert.throws(() => methods.tl5({ init: { A: init.constant(0), B: init.zeros() } }), {
      message: /all start at zero/,
    });
    assert.throws(() => methods.tl5({ init: { A: init.values(new Float32Array(8)), B: init.zeros() } }), {
      message: /all start at zero/,
    });
  });

  test("lets v start at zero in the place of B", () => {
    const { factors } = methods.tl6({ init: { v: init.zeros(), B: init.normal() } });
    assert.deepEqual([factors.v.init.zero, factors.B.init.zero], [true, false]);
  });
});

suite("settings", () => {
  test("that make no sense are refused with what was given", () => {
    assert.throws(() => methods.lora({ rank: 0 }), {
      message: /rank 0 given; expected an integer of at least 1/,
    });
    assert.throws(() => methods.lora({ rank: 2.5 }), { message: /rank 2\.5 given/ });
    assert.throws(() => methods.lora({ alpha: 0 }), { message: /alpha 0 given/ });
    assert.throws(() => methods.lora({ dropout: 1 }), { message: /dropout 1 given/ });
    assert.throws(() => tiedLora({ trained: [] }), { message: /nothing is trained/ });
    assert.throws(() => tiedLora({ trained: ["A", "W" as FactorName] }), {
      message: /W given; expected some of v, B, u, A/,
    });
    assert.throws(() => tiedLora({ trained: ["A", "A"] }), { message: /given twice/ });
  });

  test("alpha is the rank unless it is given", () => {
    assert.equal(methods.tl6({ rank: 32 }).alpha, 32);
  });
});
