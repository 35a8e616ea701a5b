/**
 * The command line on what it takes for a terminal, and a Ctrl-C that comes twice: the second while the first is seen to.
 * With "line WAY" instead of a command: a moving line alone, in a process that ends in that way.
 */
import { main } from "../../src/main.ts";
import { MovingLine } from "../../src/moving-line.ts";

Object.assign(process.stderr, { isTTY: true, columns: 100 });

const ENDS = {
  exit: () => process.exit(5),
  throws: () => {
    throw new Error("on purpose");
  },
  SIGINT: () => process.kill(process.pid, "SIGINT"),
  SIGTERM: () => process.kill(process.pid, "SIGTERM"),
  SIGHUP: () => process.kill(process.pid, "SIGHUP"),
} as const;
export type End = keyof typeof ENDS;

const [command, way] = process.argv.slice(2);
if (command === "line") {
  new MovingLine("step", 3).update(1, "");
  setTimeout(ENDS[way as End], 20);
} else {
  const again = (): void => {
    process.off("SIGINT", again);
    process.emit("SIGINT");
  };
  process.on("SIGINT", again);
  process.exitCode = await main(process.argv.slice(2));
}
