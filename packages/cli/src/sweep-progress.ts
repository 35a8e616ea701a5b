/** Shows the progress of a sweep: a line for each run that ends and, on a terminal, a moving line below them. */
import { measureOf, qualityOf } from "@tiedlora/experiments";
import {
  isWhole,
  type Outcome,
  type RunConfig,
  type RunFailure,
  runId,
  validationLoss,
} from "@tiedlora/experiments";
import { MovingLine } from "./moving-line.ts";
import { duration, paint, shellWord, type Output } from "./output.ts";

export class SweepProgress {
  failures = 0;
  #ended = 0;
  readonly #output: Output;
  readonly #count: () => number;
  readonly #json: boolean;
  readonly #start: number = performance.now();
  readonly #running = new Map<string, string>();
  readonly #bar: MovingLine | null;

  /** `count` tells how many runs there are; in a search they become more. */
  constructor(output: Output, count: () => number, json: boolean) {
    this.#output = output;
    this.#count = count;
    this.#json = json;
    this.#bar = output.interactive && !json ? new MovingLine("run", count()) : null;
  }

  step(config: RunConfig, step: number): void {
    const { task, method, rank, until, steps } = config;
    this.#running.set(
      runId(config),
      `${task} ${method} r${rank} ${Math.round((100 * step) / (until ?? steps))} %`,
    );
    this.#show();
  }

  done(result: Outcome): void {
    const number = this.#end(result.id);
    if (this.#json) this.#output.out(JSON.stringify(result));
    else this.#say(`${number} ${resultText(result)}`);
  }

  failed({ id, message }: RunFailure): void {
    this.failures++;
    const number = this.#end(id);
    if (this.#json) this.#output.out(JSON.stringify({ id, failed: message }));
    else this.#say(`${number} ${paint("red", "failed:")} ${id}: ${message}`);
  }

  /** Removes the moving line and restores the terminal. */
  stop(): void {
    this.#bar?.stop();
  }

  /** Prints the final line. */
  end(directory: string): void {
    const failed = this.failures === 0 ? "" : `, ${paint("red", `${this.failures} failed`)}`;
    this.#output.info(
      `${this.#ended - this.failures} runs finished${failed}; for a report: tiedlora report ${shellWord(directory)}`,
    );
  }

  #end(id: string): string {
    this.#ended++;
    this.#running.delete(id);
    this.#show();
    return paint("dim", `${this.#ended}/${this.#count()}`);
  }

  #say(line: string): void {
    if (this.#bar === null) this.#output.info(line);
    else this.#bar.log(line);
  }

  #show(): void {
    const perRun = (performance.now() - this.#start) / 1000 / this.#ended;
    const left = this.#ended === 0 ? "" : `${duration(perRun * (this.#count() - this.#ended))} left  `;
    this.#bar?.update(this.#ended, left + [...this.#running.values()].join(" | "), this.#count());
  }
}

/** "summary tl6 rank 8 seed 0: ROUGE-L 93.10, loss 0.0412, 4,848 trained, 21s"; of a run that ended early, the validation loss. */
function resultText(outcome: Outcome): string {
  const { config, trainable, seconds } = outcome;
  const { task, method, rank, seed } = config;
  const what = trainable === 0 ? `${task} without an adapter` : `${task} ${method} rank ${rank} seed ${seed}`;
  if (!isWhole(outcome)) {
    const loss = validationLoss(outcome).toFixed(4);
    return `${what}, lr ${config.lr}, to step ${config.until}: validation loss ${loss}, ${duration(seconds)}`;
  }
  const { test } = outcome;
  const measure = measureOf(outcome);
  const trained =
    trainable === 0 ? "" : `, ${trainable.toLocaleString("en-US")} trained, ${duration(seconds)}`;
  return `${what}: ${measure.name} ${qualityOf(outcome, measure).toFixed(2)}, loss ${test.loss.toFixed(4)}${trained}`;
}
