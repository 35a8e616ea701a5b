/** Shows the progress of a sweep: a line for each run that ends and, on a terminal, a moving line below them. */
import { measureOf, qualityOf } from "@tiedlora/experiments";
import {
  isWhole,
  type Outcome,
  type Publication,
  type RunConfig,
  type RunFailure,
  runId,
  validationLoss,
} from "@tiedlora/experiments";
import { MovingLine } from "./moving-line.ts";
import { duration, paint, shellWord, type Output } from "./output.ts";

/** Of a result that is the only one. */
const FIRST: Publication = { counts: true, difference: null };

export class SweepProgress {
  failures = 0;
  #finished = 0;
  readonly #output: Output;
  readonly #count: () => number;
  readonly #left: (() => number) | null;
  readonly #json: boolean;
  readonly #start: number = performance.now();
  readonly #running = new Map<string, string>();
  readonly #bar: MovingLine | null;

  /**
   * `count` tells how many runs there are; in a search they become more. `left` tells how many have not ended, where runs end
   * elsewhere, too.
   */
  constructor(output: Output, count: () => number, json: boolean, left: (() => number) | null = null) {
    this.#output = output;
    this.#count = count;
    this.#left = left;
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

  done(result: Outcome, { counts, difference }: Publication = FIRST): void {
    if (counts) this.#finished++;
    const number = this.#end(result.id);
    if (difference !== null)
      this.note(
        `${result.id} has two results, both of ${result.device}: ${difference}; the first one counts`,
      );
    if (!counts) this.note(`${result.id} was done elsewhere, too: the result of here does not count`);
    else if (this.#json) this.#output.out(JSON.stringify(result));
    else this.#say(`${number} ${resultText(result)}`);
  }

  failed({ id, message }: RunFailure): void {
    this.failures++;
    const number = this.#end(id);
    if (this.#json) this.#output.out(JSON.stringify({ id, failed: message }));
    else this.#say(`${number} ${paint("red", "failed:")} ${id}: ${message}`);
  }

  /** A run ended here without an outcome; `lost`: another agent has taken it over. */
  left(config: RunConfig, lost: boolean): void {
    const id = runId(config);
    this.#end(id);
    if (lost) this.note(`${id} was taken over by another agent: this one had shown no sign of life`);
  }

  /** Prints a remark. */
  note(text: string): void {
    this.#say(`${paint("yellow", "note:")} ${text}`);
  }

  /** Removes the moving line and restores the terminal. */
  stop(): void {
    this.#bar?.stop();
  }

  /** Prints the final line. */
  end(directory: string): void {
    const failed = this.failures === 0 ? "" : `, ${paint("red", `${this.failures} failed`)}`;
    const others = this.#ended - this.#finished - this.failures;
    const elsewhere = others > 0 ? `, ${others} ended elsewhere` : "";
    this.#output.info(
      `${this.#finished} runs finished${failed}${elsewhere}; for a report: tiedlora report ${shellWord(directory)}`,
    );
  }

  /** The number of runs that have ended since the beginning, here or elsewhere. */
  get #ended(): number {
    return this.#left === null ? this.#finished + this.failures : Math.max(0, this.#count() - this.#left());
  }

  #end(id: string): string {
    this.#running.delete(id);
    this.#show();
    return paint("dim", `${this.#ended}/${this.#count()}`);
  }

  #say(line: string): void {
    if (this.#bar === null) this.#output.info(line);
    else this.#bar.log(line);
  }

  #show(): void {
    if (this.#bar === null) return;
    const ended = this.#ended;
    const perRun = (performance.now() - this.#start) / 1000 / ended;
    const left = ended === 0 ? "" : `${duration(perRun * (this.#count() - ended))} left  `;
    this.#bar.update(ended, left + [...this.#running.values()].join(" | "), this.#count());
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
