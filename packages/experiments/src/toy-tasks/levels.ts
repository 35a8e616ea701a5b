/**
 * The toy tasks by difficulty: one number says how long, how far apart or how many things are that an answer depends on. Splits
 * are disjoint in what is combined, not in the wording alone: no answer of one split is an answer of another.
 */
import { chain } from "./counting.ts";
import { Cast, FACT_KINDS, readOn } from "./facts.ts";
import { a, ANIMALS, at, PEOPLE, PLACES, THINGS, to, TRADES } from "./lexicon.ts";
import type { Rng } from "./rng.ts";
import { longTalk, script } from "./talk.ts";
import { clause, dialect, english, moved, velan } from "./velan.ts";

/** The name of a toy task. */
export type ToyTaskName = "extraction" | "summary" | "choice" | "translation" | "arithmetic";

/** An example, and the combination by which it belongs to a split. */
export interface LevelExample {
  readonly prompt: string;
  readonly completion: string;
  readonly combination: string;
}

/** Something of which everybody knows what it does. */
interface Known {
  readonly name: string;
  readonly does: string;
}

/** A task by difficulty. */
export interface Levels {
  /** What grows with the difficulty, in a few words. */
  readonly grows: string;
  /** The largest difficulty. */
  readonly most: number;
  /** A new example of a difficulty from 1 to `most`, made from the numbers that `rng` draws. */
  write(rng: Rng, difficulty: number): LevelExample;
}

/** A sentence in which somebody comes upon a thing, an animal or somebody of a trade. */
export function sighting(rng: Rng, name: string): string {
  const who = rng.pick(PEOPLE);
  return rng.pick([
    `${who.name} looks at the ${name} ${at(rng.pick(PLACES))}.`,
    `There is ${a(name)} ${at(rng.pick(PLACES))}.`,
    `${who.name} goes ${to(rng.pick(PLACES))} and sees ${a(name)}.`,
  ]);
}

const EIGHTHS = 8;
const DIALECTS = Array.from({ length: EIGHTHS + 1 }, (_, i) => dialect(i / EIGHTHS));

/** What grows with the difficulty of each toy task. */
export const LEVELS: Readonly<Record<ToyTaskName, Levels>> = {
  extraction: {
    grows: "the number of facts among which is the one that is asked for: one more than the difficulty",
    most: 6,
    write(rng, difficulty) {
      const cast = new Cast(rng);
      const told = rng.sample(Object.values(FACT_KINDS), difficulty + 1).map((kind) => kind(cast));
      const { statement, question } = rng.pick(told.flatMap(readOn));
      const context = told.map((fact) => fact.statement).join(" ");
      return {
        prompt: `Context: ${context} Question: ${question} Answer:`,
        completion: ` ${statement}`,
        combination: statement,
      };
    },
  },
  summary: {
    grows:
      "the number of exchanges of small talk before what the summary tells: one less than the difficulty",
    most: 5,
    write(rng, difficulty) {
      const t = longTalk(rng, difficulty - 1);
      return {
        prompt: `Dialogue: ${script(t)} Summary:`,
        completion: ` ${t.gist}`,
        combination: t.gist,
      };
    },
  },
  choice: {
    grows:
      "the number of things, animals and trades of which something else is true than the base model knows, in eighths of all",
    most: EIGHTHS,
    write(rng, difficulty) {
      const kind: readonly Known[] = rng.pick([THINGS, THINGS, ANIMALS, TRADES]);
      const endings = rng.sample(kind, 4);
      const chosen = rng.pick(endings);
      const { name } = kind[moved(kind.length, difficulty / EIGHTHS).indexOf(kind.indexOf(chosen))]!;
      const text = sighting(rng, name);
      const listed = endings.map((ending, i) => `${i + 1}: It ${ending.does}.`).join(" ");
      return {
        prompt: `Text: ${text} Endings: ${listed} Answer:`,
        completion: ` It ${chosen.does}.`,
        combination: [chosen.does, ...endings.map(({ does }) => does).sort()].join(),
      };
    },
  },
  translation: {
    grows: "the number of words that mean something else than the base model knows, in eighths of all",
    most: EIGHTHS,
    write(rng, difficulty) {
      const c = clause(rng);
      const said = velan(c, DIALECTS[difficulty]);
      return { prompt: `English: ${english(c)} Velan:`, completion: ` ${said}`, combination: said };
    },
  },
  arithmetic: {
    grows: "the number of steps, and that of steps of another person between them: one less",
    most: 4,
    write(rng, difficulty) {
      const { question, working } = chain(rng, difficulty);
      return { prompt: `${question} Answer:`, completion: ` ${working}`, combination: working };
    },
  },
};
