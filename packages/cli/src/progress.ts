/** Shows the progress of training: one moving line on a terminal, some lines in a log, or JSON for programs. */
import { baselineOf, metricsOf } from "./run/metrics.ts";
import type { Evaluation } from "tiedlora";
import type { StepReport } from "tiedlora";
import { MovingLine } from "./moving-line.ts";
import { duration, paint, type Output } from "./output.ts";

/** The number of progress lines for a whole run, if lines cannot be overwritten. */
const LOG_LINES = 20;

export class ProgressLine {
  readonly #output: Output;
  readonly #json: boolean;
  /** The number of steps done. */
  steps = 0;
  #bar: MovingLine | null = null;
  readonly #losses: number[] = [];
  readonly #padding: number[] = [];
  #last: StepReport | null = null;

  constructor(output: Output, json: boolean) {
    this.#output = output;
    this.#json = json;
  }

  /** Shows the evaluation of the model before training. */
  baseline(evaluation: Evaluation): void {
    if (this.#json) this.#output.out(JSON.stringify(baselineOf(evaluation)));
    else this.#output.info(evaluationText(0, evaluation));
  }

  /** Shows a step, and the evaluation after it if there was one. */
  report(report: StepReport, evaluation: Evaluation | null = null): void {
    this.steps = report.step;
    this.#losses.push(report.loss);
    this.#padding.push(report.padding);
    this.#last = report;
    if (this.#json) {
      const { steps, secondsLeft } = report;
      this.#output.out(
        JSON.stringify({ ...metricsOf(report, evaluation), steps, seconds_left: secondsLeft }),
      );
    } else if (this.#output.interactive) {
      this.#bar ??= new MovingLine("step", report.steps);
      if (evaluation !== null) this.#bar.log(evaluationText(report.step, evaluation));
      this.#bar.update(report.step, statusText(report));
    } else {
      const every = Math.ceil(report.steps / LOG_LINES);
      if (report.step === 1 || report.step % every === 0) this.#output.info(progressText(report));
      if (evaluation !== null) this.#output.info(evaluationText(report.step, evaluation));
    }
  }

  /** Prints the final line. */
  end(): void {
    this.#bar?.stop();
    this.#bar = null;
    const last = this.#last;
    if (last === null) return;
    const losses = this.#losses;
    const some = Math.min(Math.ceil(losses.length / 10), 50); // single batches differ in difficulty
    const [first, end] = [mean(losses.slice(0, some)), mean(losses.slice(-some))];
    const over = some === 1 ? "step" : `${some} steps`;
    this.#output.info(
      `${paint("green", "trained")} ${last.step} steps: loss ${first.toFixed(4)} over the first ${over}, ` +
        `${end.toFixed(4)} over the last; ${last.tokens.toLocaleString("en-US")} tokens, ` +
        `${(100 * mean(this.#padding)).toFixed(1)} % padding a step, ${wholes(last.tokensPerSecond)} tokens/s`,
    );
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

const wholes = (value: number): string => Math.round(value).toLocaleString("en-US");

/** "loss 2.9381  1,240 tokens/s  12s left" */
function statusText({ loss, metrics, tokensPerSecond, secondsLeft }: StepReport): string {
  const more = Object.entries(metrics).slice(0, SHOWN).map(([name, value]) => `  ${shownName(name)} ${value.toFixed(3)}`); // prettier-ignore
  return `loss ${loss.toFixed(4)}${more.join("")}  ${wholes(tokensPerSecond)} tokens/s  ${duration(secondsLeft)} left`;
}

/** "step  40/200  loss 2.9381  1,240 tokens/s  12s left" */
function progressText(report: StepReport): string {
  const { step, steps } = report;
  return `step ${String(step).padStart(String(steps).length)}/${steps}  ${statusText(report)}`;
}

function evaluationText(step: number, { loss, perplexity, metrics }: Evaluation): string {
  const more =
    metrics === undefined
      ? [`perplexity ${perplexity.toFixed(2)}`]
      : Object.entries(metrics).map(([name, value]) => `${shownName(name)} ${value.toFixed(4)}`);
  return [`step ${step}: validation loss ${loss.toFixed(4)}`, ...more].join(", ");
}

/** The most metrics of a loss in the line of a step; `--json` and the files have all. */
const SHOWN = 2;

const shownName = (name: string): string => name.replaceAll("_", " ");
