/** A node:test reporter that hands each result to the parent process, as it happens. */

/** Why node:test does not run a test that `-t` did not choose. */
const NOT_CHOSEN = "test name does not match pattern";

const text = (value) => (typeof value === "string" ? value : undefined);

/** The error of a failed test, with the chain of its causes; node:test wraps what the test threw. */
function describe(error) {
  const inner = error?.code === "ERR_TEST_FAILURE" && error.cause !== undefined ? error.cause : error;
  const lines = [];
  for (let e = inner, depth = 0; e !== undefined && e !== null && depth < 4; e = e.cause, depth++) {
    lines.push((depth > 0 ? "caused by: " : "") + (text(e.stack) ?? text(e.message) ?? String(e)));
  }
  return lines.join("\n");
}

export default async function* reporter(events) {
  for await (const { type, data } of events) {
    const common = { name: data?.name, nesting: data?.nesting };
    if (type === "test:dequeue") process.send?.({ type: "start", ...common });
    if (type === "test:diagnostic") process.send?.({ type: "diagnostic", message: data.message });
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.skip === NOT_CHOSEN) continue;
    process.send?.({
      type: "result",
      ...common,
      passed: type === "test:pass",
      suite: data.details?.type === "suite",
      skip: data.skip === true ? "no reason given" : data.skip,
      todo: data.todo === true ? "todo" : data.todo,
      ms: data.details?.duration_ms,
      error: type === "test:fail" ? describe(data.details?.error) : undefined,
    });
  }
  yield ""; // a reporter is a generator; all it has to say was sent
}
