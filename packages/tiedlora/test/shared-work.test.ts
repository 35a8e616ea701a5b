/** What the linears of one site share: results for the tensor that they all read, and none for tensors read before. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { reference } from "@tiedlora/core";
import { SharedWork } from "../src/adapter/layer.ts";

test("results are shared by calls with one input, and forgotten once another is read", () => {
  const device = reference();
  const [x, y, factor] = [1, 2, 3].map((value) => device.tensor([value]));
  const work = new SharedWork();
  let computed = 0;
  const call = (input: typeof x): unknown =>
    work.at(
      input!,
      [factor!],
      [null],
    )(() => {
      computed++;
      return input!.mul(factor!);
    });
  const first = call(x);
  assert.equal(call(x), first);
  assert.equal(call(x), first);
  assert.equal(computed, 1);
  const other = call(y);
  assert.notEqual(other, first);
  assert.equal(call(y), other);
  assert.equal(computed, 2);
  assert.notEqual(call(x), first, "graphs of an earlier input are kept");
  assert.equal(computed, 3);
});
