/**
 * Velan, the invented language: a clause as a small tree that is said in English and in Velan. Velan has no articles,
 * puts the object first and the verb last, and adjectives after their noun; nouns end in -o, adjectives in -a, verbs
 * in -i, and a place is marked by "ne".
 */
import {
  ANIMALS,
  type Animal,
  at,
  capital,
  COLOURS,
  PLACES,
  type Place,
  SIZES,
  THINGS,
  type Thing,
} from "./lexicon.ts";
import type { Rng } from "./rng.ts";

const NOUNS: Readonly<Record<string, string>> = {
  dog: "baro", cat: "miso", horse: "taruno", cow: "bumo", duck: "kelo", fox: "vupo", bird: "siro", rabbit: "lapo",
  goat: "gefo", mouse: "piko",
  kite: "suro", boat: "navo", drum: "dumo", lamp: "luko", book: "libo", ball: "rolo", key: "kivo", hat: "capo",
  cup: "tazo", coat: "mano", bell: "dino", rope: "fuso",
  barn: "garo", garden: "horo", kitchen: "foko", forest: "silo", river: "rivo", bridge: "pono", hill: "molo", beach: "praso",
}; // prettier-ignore

const ADJECTIVES: Readonly<Record<string, string>> = {
  red: "ruda", blue: "bela", green: "vena", white: "nova", black: "noka", yellow: "gila", big: "gansa", small: "peta",
  old: "vela", new: "nita",
}; // prettier-ignore

/** Third person singular of the present, and Velan. */
const VERBS: Readonly<Record<string, string>> = {
  sees: "vidi", finds: "troi", wants: "voli", takes: "preni", likes: "ami", hides: "kasi", moves: "muti", loses: "perdi",
}; // prettier-ignore

const SUBJECTS: readonly Animal[] = ANIMALS.filter((x) => x.name in NOUNS);
const OBJECTS: readonly Thing[] = THINGS.filter((x) => x.name in NOUNS);
const WHERE: readonly Place[] = PLACES.filter((x) => x.name in NOUNS);

interface NounPhrase {
  noun: string;
  adjective: string | null;
}

export interface Clause {
  subject: NounPhrase;
  verb: string;
  object: NounPhrase;
  where: Place | null;
}

/** A random clause that both languages can say. */
export function clause(rng: Rng): Clause {
  const phrase = (noun: string): NounPhrase => ({
    noun,
    adjective: rng.chance(0.5) ? rng.pick(rng.chance(0.6) ? COLOURS : SIZES) : null,
  });
  return {
    subject: phrase(rng.pick(SUBJECTS).name),
    verb: rng.pick(Object.keys(VERBS)),
    object: phrase(rng.pick(OBJECTS).name),
    where: rng.chance(0.4) ? rng.pick(WHERE) : null,
  };
}

/** "The red dog sees the boat by the river." */
export function english(c: Clause): string {
  const phrase = (p: NounPhrase): string => `the ${p.adjective === null ? "" : `${p.adjective} `}${p.noun}`;
  const where = c.where === null ? "" : ` ${at(c.where)}`;
  return capital(`${phrase(c.subject)} ${c.verb} ${phrase(c.object)}${where}.`);
}

/** "navo baro ruda ne rivo vidi" */
export function velan(c: Clause): string {
  const phrase = (p: NounPhrase): string[] => [
    word(NOUNS, p.noun),
    ...(p.adjective === null ? [] : [word(ADJECTIVES, p.adjective)]),
  ];
  const where = c.where === null ? [] : ["ne", word(NOUNS, c.where.name)];
  return [...phrase(c.object), ...phrase(c.subject), ...where, word(VERBS, c.verb)].join(" ");
}

/** A random word and its translation. */
export function vocable(rng: Rng): { english: string; velan: string } {
  const table = rng.pick([NOUNS, ADJECTIVES, VERBS]);
  const entry = rng.pick(Object.keys(table));
  return { english: entry, velan: word(table, entry) };
}

function word(table: Readonly<Record<string, string>>, english: string): string {
  const found = table[english];
  if (found === undefined) throw new RangeError(`Velan has no word for "${english}"`);
  return found;
}
