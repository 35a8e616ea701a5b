/**
 * Facts about people and things, each as a statement and the questions that it answers. An answer is a span of the
 * statement; the reply says it in a sentence, as a person in a story would.
 */
import {
  a,
  ANIMALS,
  at,
  capital,
  COLOURS,
  DAYS,
  GOODS,
  PEOPLE,
  type Person,
  PLACES,
  THINGS,
  to,
  TRADES,
} from "./lexicon.ts";
import type { Rng } from "./rng.ts";

export interface Question {
  question: string;
  answer: string;
  reply: string;
}

export interface Fact {
  statement: string;
  questions: Question[];
}

/** Deals out people, things, places …, each once while its list lasts, so that the facts of one text do not contradict. */
export class Cast {
  readonly rng: Rng;
  readonly #left = new Map<readonly unknown[], unknown[]>();

  constructor(rng: Rng) {
    this.rng = rng;
  }

  draw<T>(list: readonly T[]): T {
    let left = this.#left.get(list) as T[] | undefined;
    if (left === undefined || left.length === 0) this.#left.set(list, (left = this.rng.shuffle(list)));
    return left.pop() as T;
  }
}

export type FactKind = "location" | "possession" | "trade" | "journey" | "count" | "gift" | "pet";

/** Each kind draws what it needs from the cast and tells one fact. */
export const FACT_KINDS: Readonly<Record<FactKind, (cast: Cast) => Fact>> = {
  location(cast) {
    const thing = cast.draw(THINGS).name;
    const where = at(cast.draw(PLACES));
    return {
      statement: `The ${thing} is ${where}.`,
      questions: [{ question: `Where is the ${thing}?`, answer: where, reply: `The ${thing} is ${where}.` }],
    };
  },
  possession(cast) {
    const { name } = cast.draw(PEOPLE);
    const colour = cast.draw(COLOURS);
    const thing = cast.draw(THINGS).name;
    return {
      statement: `${name} has ${a(colour)} ${thing}.`,
      questions: [
        { question: `Who has the ${thing}?`, answer: name, reply: `${name} has it.` },
        {
          question: `What does ${name} have?`,
          answer: `${a(colour)} ${thing}`,
          reply: `${name} has ${a(colour)} ${thing}.`,
        },
        { question: `What colour is the ${thing}?`, answer: colour, reply: `The ${thing} is ${colour}.` },
      ],
    };
  },
  trade(cast) {
    const { name } = cast.draw(PEOPLE);
    const trade = cast.draw(TRADES).name;
    return {
      statement: `${name} is ${a(trade)}.`,
      questions: [
        { question: `Who is the ${trade}?`, answer: name, reply: `${name} is the ${trade}.` },
        { question: `What is the work of ${name}?`, answer: trade, reply: `${name} is ${a(trade)}.` },
      ],
    };
  },
  journey(cast) {
    const { name } = cast.draw(PEOPLE);
    const where = to(cast.draw(PLACES));
    const day = cast.draw(DAYS);
    return {
      statement: `On ${day} ${name} went ${where}.`,
      questions: [
        {
          question: `When did ${name} go ${where}?`,
          answer: `On ${day}`,
          reply: `${name} went there on ${day}.`,
        },
        { question: `Where did ${name} go on ${day}?`, answer: where, reply: `${name} went ${where}.` },
        { question: `Who went ${where}?`, answer: name, reply: `${name} went ${where}.` },
      ],
    };
  },
  count(cast) {
    const { name } = cast.draw(PEOPLE);
    const goods = cast.draw(GOODS);
    const n = cast.rng.range(2, 20);
    return {
      statement: `${name} has ${n} ${goods}.`,
      questions: [
        {
          question: `How many ${goods} does ${name} have?`,
          answer: `${n}`,
          reply: `${name} has ${n} ${goods}.`,
        },
        { question: `Who has ${n} ${goods}?`, answer: name, reply: `${name} has ${n} ${goods}.` },
      ],
    };
  },
  gift(cast) {
    const giver = cast.draw(PEOPLE).name;
    const taker = cast.draw(PEOPLE).name;
    const thing = cast.draw(THINGS).name;
    return {
      statement: `${giver} gave the ${thing} to ${taker}.`,
      questions: [
        {
          question: `Who gave the ${thing} to ${taker}?`,
          answer: giver,
          reply: `${giver} gave it to ${taker}.`,
        },
        { question: `Who got the ${thing}?`, answer: taker, reply: `${taker} got the ${thing}.` },
        {
          question: `What did ${giver} give to ${taker}?`,
          answer: `the ${thing}`,
          reply: `${giver} gave ${taker} the ${thing}.`,
        },
      ],
    };
  },
  pet(cast) {
    const { name } = cast.draw(PEOPLE);
    const animal = cast.draw(ANIMALS).name;
    const place = at(cast.draw(PLACES));
    return {
      statement: `${name}'s ${animal} sleeps ${place}.`,
      questions: [
        { question: `Where does the ${animal} sleep?`, answer: place, reply: `It sleeps ${place}.` },
        { question: `Who has ${a(animal)}?`, answer: name, reply: `${name} has ${a(animal)}.` },
      ],
    };
  },
};

/**
 * The questions of a fact that name the beginning of its statement, and ask for its end: a model of this size learns to answer
 * them, by repeating the sentence. For other questions ("Who has the ball?"), it would have to read backwards from the match.
 * No two statements of a text are of one kind.
 */
export function readOn({ statement, questions }: Fact): { statement: string; question: string }[] {
  return questions
    .filter(({ answer }) => statement.endsWith(`${answer}.`))
    .map(({ question }) => ({ statement, question }));
}

/** `count` facts that fit together, with two or more of one kind, so that a question can only be answered by reading it. */
export function facts(rng: Rng, count: number): Fact[] {
  const cast = new Cast(rng);
  const kinds = rng.sample(Object.values(FACT_KINDS), Math.max(1, Math.floor(count / 2)));
  return rng.shuffle(
    Array.from({ length: count }, (_, i) => (kinds[i % kinds.length] as (typeof kinds)[number])(cast)),
  );
}

/** What everybody knows: one sentence about a kind of thing, animal or trade. */
export function lore(rng: Rng): string {
  const known: readonly (() => string)[] = [
    () => say(rng.pick(THINGS)),
    () => say(rng.pick(THINGS)),
    () => say(rng.pick(ANIMALS)),
    () => ((x) => capital(`${a(x.name)} eats ${x.eats}.`))(rng.pick(ANIMALS)),
    () => say(rng.pick(TRADES)),
  ];
  return rng.pick(known)();
}

function say(x: { name: string; does: string }): string {
  return capital(`${a(x.name)} ${x.does}.`);
}

/** Two different people. */
export function pair(rng: Rng): [Person, Person] {
  return rng.sample(PEOPLE, 2) as [Person, Person];
}
