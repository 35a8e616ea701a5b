/** Runs in the worker of a lesson, before the lesson itself: sends what it prints to the page. */
export type LessonReply =
  | { readonly type: "line"; readonly text: string }
  | { readonly type: "done" }
  | { readonly type: "failed"; readonly text: string };

const scope = globalThis as unknown as { postMessage(message: LessonReply): void };

/** Runs `lesson`, and reports the lines that it prints and how it ends. */
export async function report(lesson: () => Promise<unknown>): Promise<void> {
  const print = (...values: readonly unknown[]): void =>
    scope.postMessage({ type: "line", text: values.map(textOf).join(" ") });
  console.log = print;
  console.table = (rows: unknown): void => print(JSON.stringify(rows, null, 2));
  try {
    await lesson();
    scope.postMessage({ type: "done" });
  } catch (error) {
    scope.postMessage({ type: "failed", text: error instanceof Error ? error.message : String(error) });
  }
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  if (value === null || typeof value !== "object") return String(value);
  return ArrayBuffer.isView(value) && "join" in value
    ? `[ ${(value as unknown as number[]).join(", ")} ]`
    : JSON.stringify(value);
}
