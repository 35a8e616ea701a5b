/** How training goes: one moving line on a terminal, some lines in a log, or JSON for programs. */
import type { StepReport } from "../train/train.ts";
import { duration, paint, type Output } from "./output.ts";

/** Where nothing can be overwritten, so many lines show the whole run. */
const LOG_LINES = 20;
const BAR = 20;

export class ProgressLine {
  readonly #output: Output;
  readonly #json: boolean;
  /** Steps done. */
  steps = 0;
  #first: number | null = null;
  #last: StepReport | null = null;

  constructor(output: Output, json: boolean) {
    this.#output = output;
    this.#json = json;
  }

  report(report: StepReport): void {
    this.steps = report.step;
    this.#first ??= report.loss;
    this.#last = report;
    if (this.#json) {
      this.#output.out(JSON.stringify(report));
    } else if (this.#output.interactive) {
      this.#output.status(progressText(report));
    } else if (report.step === 1 || report.step % Math.ceil(report.steps / LOG_LINES) === 0) {
      this.#output.info(progressText(report));
    }
  }

  /** The line that stays. */
  end(): void {
    const last = this.#last;
    if (last === null || this.#first === null) return;
    this.#output.info(
      `${paint("green", "trained")} ${last.step} steps: loss ${this.#first.toFixed(4)} at the first, ` +
        `${last.loss.toFixed(4)} at the last; ${last.tokens.toLocaleString("en-US")} tokens, ${Math.round(last.tokensPerSecond).toLocaleString("en-US")} tokens/s`,
    );
  }
}

/** "step  40/200 [####......] loss 2.9381  1,240 tokens/s  12s left" */
export function progressText({ step, steps, loss, tokensPerSecond, secondsLeft }: StepReport): string {
  const filled = Math.round((BAR * step) / steps);
  const bar = "#".repeat(filled) + ".".repeat(BAR - filled);
  const speed = `${Math.round(tokensPerSecond).toLocaleString("en-US")} tokens/s`;
  return `step ${String(step).padStart(String(steps).length)}/${steps} [${bar}] loss ${loss.toFixed(4)}  ${speed}  ${duration(secondsLeft)} left`;
}
