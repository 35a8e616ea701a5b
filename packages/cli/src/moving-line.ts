/** The moving line at the bottom of a terminal. The cursor is shown again however the process ends. */
import { MultiBar } from "cli-progress";
import { SIGNALS } from "./interrupt.ts";

/** Shows the cursor, and lets long lines wrap again. */
const RESTORE = "\u001b[?25h\u001b[?7h";

export class MovingLine {
  readonly #bars: MultiBar;
  readonly #bar: ReturnType<MultiBar["create"]>;

  /** `unit` is the name of the things that are counted, up to `total`. */
  constructor(unit: string, total: number) {
    this.#bars = new MultiBar({
      format: `${unit} {value}/{total} [{bar}] {text}`,
      barsize: 20,
      barCompleteChar: "#",
      barIncompleteChar: ".",
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
    });
    process.on("exit", this.#restore);
    for (const name of SIGNALS) process.on(name, this.#onSignal);
    this.#bar = this.#bars.create(total, 0, { text: "" });
  }

  update(value: number, text: string, total: number = this.#bar.getTotal()): void {
    this.#bar.setTotal(total);
    this.#bar.update(value, { text });
  }

  /** Prints a line that stays, above the moving one. */
  log(line: string): void {
    this.#bars.log(`${line}\n`);
  }

  stop(): void {
    this.#bars.stop();
    this.#release();
  }

  #release(): void {
    process.off("exit", this.#restore);
    for (const name of SIGNALS) process.off(name, this.#onSignal);
  }

  readonly #restore = (): void => {
    process.stderr.write(RESTORE);
  };

  /** Restores the terminal: without another listener, a signal would end the process without an "exit" event. */
  readonly #onSignal = (name: NodeJS.Signals): void => {
    if (process.listenerCount(name) > 1) return;
    this.stop();
    process.kill(process.pid, name);
  };
}
