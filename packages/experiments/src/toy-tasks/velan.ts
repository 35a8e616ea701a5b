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

/** The words of Velan, or of a dialect of it, by their English. */
interface Vocabulary {
  readonly nouns: Readonly<Record<string, string>>;
  readonly adjectives: Readonly<Record<string, string>>;
  readonly verbs: Readonly<Record<string, string>>;
}

const VELAN: Vocabulary = { nouns: NOUNS, adjectives: ADJECTIVES, verbs: VERBS };

/** "navo baro ruda ne rivo vidi" */
export function velan(c: Clause, { nouns, adjectives, verbs }: Vocabulary = VELAN): string {
  const phrase = (p: NounPhrase): string[] => [
    word(nouns, p.noun),
    ...(p.adjective === null ? [] : [word(adjectives, p.adjective)]),
  ];
  const where = c.where === null ? [] : ["ne", word(nouns, c.where.name)];
  return [...phrase(c.object), ...phrase(c.subject), ...where, word(verbs, c.verb)].join(" ");
}

/**
 * For each of `count` things, the place of the one whose meaning it has if a `share` of them, in [0, 1], have that of the next one among
 * them: a permutation. They are spread over the list, so that all kinds are among them.
 */
export function moved(count: number, share: number): readonly number[] {
  const some = Math.round(share * count);
  const chosen = Array.from({ length: some }, (_, i) => Math.floor((i * count) / some));
  const next = new Map(chosen.map((at, i) => [at, chosen[(i + 1) % some]!]));
  return Array.from({ length: count }, (_, i) => next.get(i) ?? i);
}

/** A dialect of Velan, in which a `share` of the nouns, of the adjectives and of the verbs mean something else. */
export function dialect(share: number): Vocabulary {
  const exchanged = (words: Readonly<Record<string, string>>): Readonly<Record<string, string>> => {
    const [keys, values] = [Object.keys(words), Object.values(words)];
    const places = moved(keys.length, share);
    return Object.fromEntries(keys.map((key, i) => [key, values[places[i]!]!]));
  };
  return { nouns: exchanged(NOUNS), adjectives: exchanged(ADJECTIVES), verbs: exchanged(VERBS) };
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
