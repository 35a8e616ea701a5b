/** What a run records of its settings. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { test } from "node:test";
import { absolute } from "../src/recorded.ts";
import type { TrainSettings } from "../src/train-settings.ts";

test("a teacher's directory is recorded as an absolute path, also one whose relative path looks like a name of the hub", () => {
  const teacherOf = (teacher: string): string | undefined =>
    absolute({ model: ".", teacher, out: "out" } as unknown as TrainSettings, { directory: ".", hub: null }, undefined).teacher; // prettier-ignore
  assert.ok(existsSync("packages/cli"), "tests run in the root of the repository");
  assert.equal(teacherOf("packages/cli"), resolve("packages/cli"));
  assert.equal(teacherOf("owner/name"), "owner/name");
});
