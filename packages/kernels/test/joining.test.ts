/** The order of kernels that are joined: its answers are those of whole searches, and short where kernels are close. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { JoiningOrder } from "@tiedlora/kernels/joining";
import fc from "fast-check";

interface Kernel {
  needs: Set<Kernel>;
}

/** `starts` and all that they wait for. */
function before(starts: Iterable<Kernel>): Set<Kernel> {
  const found = new Set(starts);
  for (const one of found) for (const need of one.needs) found.add(need);
  return found;
}

function hasBetween(first: Kernel, second: Kernel): boolean {
  const thirds = [...first.needs, ...second.needs].filter((one) => one !== first && one !== second);
  const all = before(thirds);
  return all.has(first) || all.has(second);
}

/** Joins two kernels in `kernels`, and returns the joint one. */
function join(kernels: Kernel[], first: Kernel, second: Kernel): Kernel {
  const joint: Kernel = { needs: new Set([...first.needs, ...second.needs]) };
  joint.needs.delete(first);
  joint.needs.delete(second);
  kernels.splice(0, kernels.length, joint, ...kernels.filter((one) => one !== first && one !== second));
  for (const { needs } of kernels) {
    const had = [first, second].filter((one) => needs.delete(one));
    if (had.length > 0) needs.add(joint);
  }
  return joint;
}

test("what is said of kernels while they are joined is what searching all of them says", () => {
  let joined = 0;
  const edges = fc.array(fc.array(fc.nat(1000), { maxLength: 3 }), { minLength: 4, maxLength: 14 });
  const pairs = fc.array(fc.tuple(fc.nat(1000), fc.nat(1000)), { maxLength: 25 });
  fc.assert(
    fc.property(edges, pairs, (lists, picks) => {
      const kernels: Kernel[] = [];
      const order = new JoiningOrder<Kernel>();
      for (const list of lists) {
        const own = kernels.length === 0 ? [] : list.map((n) => kernels[n % kernels.length]!);
        const kernel: Kernel = { needs: new Set(own) };
        kernels.push(kernel);
        order.add(kernel, kernel.needs);
      }
      for (const [a, b] of picks) {
        const [first, second] = [kernels[a % kernels.length]!, kernels[b % kernels.length]!];
        if (first === second) continue;
        const others = kernels.filter((other) => other !== first);
        const apart = others.filter((other) => !hasBetween(first, other));
        assert.deepEqual(new Set(order.apart(first, others)), new Set(apart));
        assert.equal(order.hasBetween(first, second), hasBetween(first, second));
        const waits = [...before([first])].filter((one) => !before([second]).has(one));
        assert.deepEqual(new Set(order.without(first, second)), new Set(waits));
        assert.equal(order.waitsForAll(first, waits), true);
        assert.equal(order.waitsForAll(second, waits), waits.length === 0);
        if (hasBetween(first, second)) continue;
        joined++;
        const joint = join(kernels, first, second);
        order.join(first, second, joint, joint.needs);
      }
    }),
  );
  assert.ok(joined > 100, `only ${joined} pairs were joined`);
});

test("in a chain of pairs that are joined, the searches pass few kernels", () => {
  const PAIRS = 500;
  const order = new JoiningOrder<Kernel>();
  const kernels: Kernel[] = [];
  for (let i = 0; i < 2 * PAIRS; i++) {
    const kernel: Kernel = { needs: new Set(kernels.slice(-1)) };
    kernels.push(kernel);
    order.add(kernel, kernel.needs);
  }
  const all = [...kernels];
  for (let i = 0; i < PAIRS; i++) {
    const [first, second] = [all[2 * i]!, all[2 * i + 1]!];
    assert.ok(!order.hasBetween(first, second));
    assert.deepEqual(order.without(second, first), [second]);
    const joint = join(kernels, first, second);
    order.join(first, second, joint, joint.needs);
  }
  assert.ok(order.counts.passed <= 10 * PAIRS, `${order.counts.passed} kernels were passed`);
});
