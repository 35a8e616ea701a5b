/**
 * Small conversations between two people, each with its gist in one sentence. Stories tell them as prose; the
 * summary task shows the lines and asks for the gist.
 */
import { pair } from "./facts.ts";
import { ANIMALS, at, COLOURS, DAYS, FEELINGS, type Person, PLACES, THINGS, to } from "./lexicon.ts";
import type { Rng } from "./rng.ts";

export interface Talk {
  people: [Person, Person];
  /** The speaker (0 or 1), and the text. */
  lines: [speaker: 0 | 1, text: string][];
  gist: string;
}

type Topic = (rng: Rng, a: Person, b: Person) => Omit<Talk, "people">;

const TOPICS = {
  lost(rng, a, b) {
    const thing = `${rng.pick(COLOURS)} ${rng.pick(THINGS).name}`;
    const where = at(rng.pick(PLACES));
    if (rng.chance(0.35)) {
      return {
        lines: [[0, `Have you seen my ${thing}?`], [1, "No, I have not."], [0, "Then I must go on looking."]],
        gist: `${a.name} cannot find ${a.their} ${thing}.`,
      }; // prettier-ignore
    }
    return {
      lines: [[0, `Have you seen my ${thing}?`], [1, `Yes, I saw it ${where}.`], [0, "Good, I will look there."]],
      gist: `${b.name} tells ${a.name} that ${a.their} ${thing} is ${where}.`,
    }; // prettier-ignore
  },
  invitation(rng, a, b) {
    const where = to(rng.pick(PLACES));
    const day = rng.pick(DAYS);
    if (rng.chance(0.4)) {
      return {
        lines: [[0, `Will you come ${where} on ${day}?`], [1, `I am too ${rng.pick(["tired", "busy"])}.`], [0, "What a pity."]],
        gist: `${b.name} will not go ${where} with ${a.name}.`,
      }; // prettier-ignore
    }
    return {
      lines: [[0, `Will you come ${where} on ${day}?`], [1, "Yes, I will come."], [0, "That makes me happy."]],
      gist: `${a.name} and ${b.name} will go ${where} on ${day}.`,
    }; // prettier-ignore
  },
  loan(rng, a, b) {
    const thing = rng.pick(THINGS).name;
    const day = rng.pick(DAYS);
    return {
      lines: [[0, `May I borrow your ${thing}?`], [1, `Yes, but I need it on ${day}.`], [0, "I will bring it back."]],
      gist: `${a.name} borrows ${b.name}'s ${thing} until ${day}.`,
    }; // prettier-ignore
  },
  sale(rng, a, b) {
    const thing = rng.pick(THINGS).name;
    const price = rng.range(2, 20);
    if (rng.chance(0.4)) {
      return {
        lines: [[0, `How much is the ${thing}?`], [1, `It costs ${price} coins.`], [0, "That is too much for me."]],
        gist: `${a.name} does not buy ${b.name}'s ${thing}.`,
      }; // prettier-ignore
    }
    return {
      lines: [[0, `How much is the ${thing}?`], [1, `It costs ${price} coins.`], [0, "I will take it."]],
      gist: `${a.name} buys ${b.name}'s ${thing} for ${price} coins.`,
    }; // prettier-ignore
  },
  news(rng, a, b) {
    const animal = rng.pick(ANIMALS).name;
    const feeling = rng.pick(FEELINGS);
    return {
      lines: [[0, `How is your ${animal}?`], [1, `It is ${feeling} today.`], [0, "I will come and see it."]],
      gist: `${a.name} will visit ${b.name}'s ${feeling} ${animal}.`,
    }; // prettier-ignore
  },
} satisfies Record<string, Topic>;

const GREETINGS: readonly (readonly [string, string])[] = [
  ["Good morning.", "Good morning to you."],
  ["How are you?", "I am well."],
  ["What a cold day.", "Yes, the wind is strong."],
  ["The sun is warm today.", "Yes, it is a fine day."],
];

/** A conversation: sometimes with small talk before it, which the gist leaves out. */
export function talk(rng: Rng): Talk {
  const people = pair(rng);
  const topic: Topic = rng.pick(Object.values(TOPICS));
  const { lines, gist } = topic(rng, ...people);
  if (!rng.chance(0.4)) return { people, lines, gist };
  const [first, second] = rng.pick(GREETINGS);
  return { people, lines: [[0, first], [1, second], ...lines], gist };
}

/** A conversation with `count` exchanges of small talk before it, each another one; the gist leaves them out. */
export function longTalk(rng: Rng, count: number): Talk {
  const people = pair(rng);
  const topic: Topic = rng.pick(Object.values(TOPICS));
  const { lines, gist } = topic(rng, ...people);
  const before = rng.sample(GREETINGS, count).flatMap(([first, second]): Talk["lines"] => [[0, first], [1, second]]); // prettier-ignore
  return { people, lines: [...before, ...lines], gist };
}

/** "Mia: How are you? Tom: I am well." */
export function script(t: Talk): string {
  return t.lines.map(([who, text]) => `${t.people[who].name}: ${text}`).join(" ");
}
