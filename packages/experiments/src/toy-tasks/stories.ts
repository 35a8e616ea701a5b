/**
 * The text that the base model is pretrained on: short documents in the English of the little world. It covers everything
 * that a model must know for the toy tasks, but shows none of their formats.
 */
import { Cast, type Fact, FACT_KINDS, facts, lore, pair, type Question } from "./facts.ts";
import {
  a,
  ANIMALS,
  capital,
  COLOURS,
  DAYS,
  FEELINGS,
  GOODS,
  near,
  PEOPLE,
  PLACES,
  quoted,
  SIZES,
  THINGS,
  to,
  TRADES,
} from "./lexicon.ts";
import { Rng } from "./rng.ts";
import { adventure } from "./adventure.ts";
import { sumLine, tally } from "./counting.ts";
import { talk } from "./talk.ts";
import { clause, english, velan, vocable } from "./velan.ts";

/** A document of one kind; documents are independent of each other. */
type Writer = (rng: Rng) => string;

/** Most of the questions about some facts: many for one text, since only their answers have to be looked up in it. */
function asked(rng: Rng, told: readonly Fact[]): Question[] {
  return rng.shuffle(told.flatMap((fact) => fact.questions)).slice(0, rng.range(3, 6));
}

/** Facts, and people who ask about them. */
const questions: Writer = (rng) => {
  const told = facts(rng, rng.range(2, 4));
  const [p, q] = pair(rng);
  const say = rng.pick<(x: Question) => string>([
    ({ question, reply }) => `${quoted(question, `asked ${p.name}`)} ${quoted(reply, `said ${q.name}`)}`,
    ({ question, reply }) => `${p.name} asked, "${question}" ${q.name} said, "${reply}"`,
    ({ question, reply }) => `"${question}" "${reply}"`,
  ]);
  return [...told.map((f) => f.statement), ...asked(rng, told).map(say)].join(" ");
};

/** Facts, and somebody who remembers them in a few words. */
const memory: Writer = (rng) => {
  const told = facts(rng, rng.range(2, 4));
  const { name, they } = rng.pick(PEOPLE);
  const remember = rng.pick<(x: Question) => string>([
    ({ question, answer }) => `${name} wondered, "${question}" Then ${they} knew: ${answer}.`,
    ({ question, answer }) => `${question} ${name} knew: ${answer}.`,
    ({ question, answer }) => `${question} ${capital(answer)}.`,
  ]);
  return [...told.map((f) => f.statement), ...asked(rng, told).map(remember)].join(" ");
};

const portrait: Writer = (rng) => {
  const p = rng.pick(PEOPLE);
  const trade = rng.pick(TRADES);
  const animal = rng.pick(ANIMALS);
  const lines = [
    `${capital(p.they)} has ${a(`${rng.pick(SIZES)} ${animal.name}`)}, and it ${animal.does}.`,
    `${capital(p.they)} lives ${near(rng.pick(PLACES))}.`,
    `${capital(p.they)} likes ${rng.pick(GOODS)} and ${rng.pick(COLOURS)} roses.`,
    `Every ${rng.pick(DAYS)} ${p.they} goes ${to(rng.pick(PLACES))}.`,
    `Today ${p.they} is ${rng.pick(FEELINGS)}.`,
  ];
  return [`${p.name} is ${a(trade.name)} and ${trade.does}.`, ...rng.sample(lines, rng.range(1, 3))].join(
    " ",
  );
};

const knowledge: Writer = (rng) => Array.from({ length: rng.range(2, 5) }, () => lore(rng)).join(" ");

/** People who choose from a list by number: the list has names, or what everybody knows about each thing. */
const choosing: Writer = (rng) => {
  const list = rng.sample(rng.pick([THINGS, THINGS, ANIMALS, TRADES]), 4);
  const [p, q] = pair(rng);
  const byName = rng.chance(0.5);
  const shown = list.map((x, i) => `${i + 1}: ${byName ? `The ${x.name}.` : `It ${x.does}.`}`).join(" ");
  const choices = rng.shuffle(list.map((item, i) => ({ item, number: i + 1 })));
  const told = rng.pick<(x: (typeof choices)[number]) => string>([
    ({ item, number }) => (byName ? `It ${item.does}: ${number}.` : `The ${item.name} is ${number}.`),
    ({ item, number }) => `${capital(byName ? `the one that ${item.does}` : a(item.name))}? ${number}.`,
    ({ item, number }) => {
      const { name, they } = rng.pick(PEOPLE);
      const wish = byName && rng.chance(0.7) ? `the one that ${item.does}` : `the ${item.name}`;
      return `${name} wanted ${wish}, so ${they} took ${number}.`;
    },
  ]);
  return `${p.name} showed ${q.name} a list. ${shown} ${choices.map(told).join(" ")}`;
};

/** Counting, and the sum as it is written. */
const counting: Writer = (rng) => {
  const { told, sum } = tally(rng);
  const { name } = rng.pick(PEOPLE);
  return rng.pick([
    told,
    `${told} ${name} wrote ${sum} on the wall.`,
    `${name} wrote ${sum} on the wall. ${told}`,
  ]);
};

const sums: Writer = (rng) => {
  const lines = Array.from({ length: rng.range(2, 5) }, () => sumLine(rng));
  return `${rng.pick(PEOPLE).name} wrote on the wall: ${lines.join(", ")}.`;
};

const conversation: Writer = (rng) => {
  const { people, lines, gist } = talk(rng);
  const told = lines.map(([who, text]) =>
    rng.chance(0.5) ? quoted(text, `says ${people[who].name}`) : `${people[who].name} says: "${text}"`,
  );
  return (rng.chance(0.3) ? [gist, ...told] : [...told, gist]).join(" ");
};

/** Somebody who learns Velan: words, and sentences in both languages, with and without quotation marks, which change the tokens. */
const foreign: Writer = (rng) => {
  const c = clause(rng);
  const word = vocable(rng);
  const { name } = rng.pick(PEOPLE);
  return rng.pick([
    `In Velan, "${english(c)}" is "${velan(c)}".`,
    `"${velan(c)}" is Velan and means "${english(c).slice(0, -1)}".`,
    `${name} says "${english(c)}" and then says it in Velan: "${velan(c)}".`,
    `The Velan word for "${word.english}" is "${word.velan}". ${name} says: "${velan(c)}".`,
    `"${english(c)}" in Velan is ${velan(c)}.`,
    `The teacher wrote in Velan: ${velan(c)}.`,
  ]);
};

/** Plain sentences about the animals and things that Velan can speak of. */
const scenes: Writer = (rng) => Array.from({ length: rng.range(2, 4) }, () => english(clause(rng))).join(" ");

/** Loose facts of all kinds. */
const notes: Writer = (rng) => {
  const cast = new Cast(rng);
  const kinds = Object.values(FACT_KINDS);
  return Array.from({ length: rng.range(2, 5) }, () => rng.pick(kinds)(cast).statement).join(" ");
};

/** Somebody repeats a text word for word: a model predicts it better by looking back. */
const echo: Writer = (rng) => {
  const [p, q] = pair(rng);
  const said: readonly (() => string)[] = [
    () => facts(rng, rng.range(1, 2)).map((fact) => fact.statement).join(" "),
    () => english(clause(rng)),
    () => `${capital(velan(clause(rng)))}.`,
    () => lore(rng),
    () => `${rng.sample(THINGS, rng.range(3, 6)).map((x) => x.name).join(", ")}.`,
    () => `${rng.sample(PEOPLE, rng.range(3, 6)).map((x) => x.name).join(", ")}.`,
  ]; // prettier-ignore
  const text = rng.pick(said)();
  return rng.pick([
    `${p.name} said, "${text}" ${q.name} said it too: "${text}"`,
    `${p.name} read, "${text}" Then ${q.name} read, "${text}"`,
    `"${text}" said ${p.name}. "${text}" said ${q.name}.`,
  ]);
};

const SCHOOL_WORDS: readonly string[] =
  "Answer Context Dialogue Endings English Question Summary Text Velan Friend Home Story Sun Water Word".split(
    " ",
  );

/** Words on the wall of a school, among them the words of the tasks' prompts. */
const school: Writer = (rng) => {
  const words = rng.sample(SCHOOL_WORDS, rng.range(2, 5));
  const { name } = rng.pick(PEOPLE);
  return rng.pick([
    `The teacher wrote some words on the wall: ${words.join(", ")}.`,
    `${name} can read: ${words.join(" and ")}.`,
    `${name} asked what a ${(words[0] as string).toLowerCase()} is, but there was no answer.`,
  ]);
};

const WRITERS: readonly (readonly [weight: number, writer: Writer])[] = [
  [6, adventure],
  [18, questions],
  [18, memory],
  [3, portrait],
  [5, knowledge],
  [20, choosing],
  [9, counting],
  [4, sums],
  [10, conversation],
  [14, foreign],
  [2, scenes],
  [2, notes],
  [2, school],
  [10, echo],
];

/** Document `index` of the endless corpus that `seed` names: one to about ten sentences. */
export function document(seed: number, index: number): string {
  const rng = new Rng(seed, "document", index);
  return rng.weighted(WRITERS)(rng);
}

/** The endless corpus that `seed` names. */
export function* corpus(seed: number): Generator<string, never> {
  for (let index = 0; ; index++) yield document(seed, index);
}
