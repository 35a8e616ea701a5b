/**
 * The words of the little world that the base model is trained on: people, animals, things, places, trades, and
 * what everybody there knows about them. All text of the toy tasks is made of these words and the templates in other files.
 */

export interface Person {
  name: string;
  /** she, he */
  they: string;
  /** her, him */
  them: string;
  /** her, his */
  their: string;
}

const she = (name: string): Person => ({ name, they: "she", them: "her", their: "her" });
const he = (name: string): Person => ({ name, they: "he", them: "him", their: "his" });

export const PEOPLE: readonly Person[] = [
  ...["Mia", "Anna", "Lily", "Emma", "Rosa", "Nora", "Zoe", "Eva", "Ruth", "Clara", "Ivy", "June"].map(she),
  ...["Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Finn", "Paul", "Oscar", "Hugo", "Adam", "Karl"].map(he),
];

/** A thing one can hold. `does` completes "It ..." and is different for each thing. */
export interface Thing {
  name: string;
  does: string;
}

const thing = (name: string, does: string): Thing => ({ name, does });

export const THINGS: readonly Thing[] = [
  thing("kite", "flies in the wind"),
  thing("boat", "floats on the water"),
  thing("drum", "makes a loud noise"),
  thing("lamp", "gives a warm light"),
  thing("book", "tells a long story"),
  thing("ball", "rolls down the path"),
  thing("key", "opens the old door"),
  thing("hat", "keeps the sun away"),
  thing("cup", "holds hot tea"),
  thing("coat", "keeps the cold out"),
  thing("bell", "rings in the tower"),
  thing("rope", "ties the gate shut"),
  thing("map", "shows the way home"),
  thing("letter", "brings good news"),
  thing("clock", "counts the hours"),
  thing("flute", "plays a soft song"),
  thing("candle", "melts drop by drop"),
  thing("sled", "slides over the snow"),
  thing("spoon", "stirs the soup"),
  thing("broom", "sweeps the floor"),
  thing("net", "catches many fish"),
  thing("wagon", "carries the hay"),
];

export interface Animal {
  name: string;
  does: string;
  eats: string;
}

const animal = (name: string, does: string, eats: string): Animal => ({ name, does, eats });

export const ANIMALS: readonly Animal[] = [
  animal("dog", "barks at strangers", "bones"),
  animal("cat", "purrs on the sofa", "fish"),
  animal("horse", "runs very fast", "hay"),
  animal("cow", "gives fresh milk", "grass"),
  animal("duck", "swims in the pond", "bread"),
  animal("fox", "hides in a den", "berries"),
  animal("bird", "sings in the tree", "worms"),
  animal("rabbit", "digs a deep hole", "carrots"),
  animal("goat", "climbs over rocks", "leaves"),
  animal("mouse", "squeaks at night", "cheese"),
];

export interface Trade {
  name: string;
  does: string;
}

const trade = (name: string, does: string): Trade => ({ name, does });

export const TRADES: readonly Trade[] = [
  trade("baker", "bakes bread"),
  trade("farmer", "grows corn"),
  trade("teacher", "teaches children"),
  trade("sailor", "sails ships"),
  trade("painter", "paints pictures"),
  trade("doctor", "heals the sick"),
  trade("tailor", "sews clothes"),
  trade("smith", "forges iron"),
];

export interface Place {
  name: string;
  /** in, at, on, by */
  preposition: string;
}

const place = (preposition: string, name: string): Place => ({ name, preposition });

export const PLACES: readonly Place[] = [
  place("in", "barn"),
  place("in", "garden"),
  place("in", "kitchen"),
  place("in", "forest"),
  place("in", "library"),
  place("in", "shop"),
  place("at", "school"),
  place("at", "market"),
  place("at", "station"),
  place("by", "river"),
  place("by", "bridge"),
  place("on", "hill"),
  place("on", "beach"),
  place("on", "farm"),
];

/** Where something is: "in the barn". */
export const at = (p: Place): string => `${p.preposition} the ${p.name}`;
/** Where somebody lives: "near the barn". */
export const near = (p: Place): string => `near the ${p.name}`;
/** Where somebody goes: "to the barn". */
export const to = (p: Place): string => `to the ${p.name}`;

export const COLOURS: readonly string[] = ["red", "blue", "green", "white", "black", "yellow"];
export const SIZES: readonly string[] = ["big", "small", "old", "new"];
export const FEELINGS: readonly string[] = ["happy", "sad", "tired", "angry", "proud", "hungry"];
export const DAYS: readonly string[] = [
  "Monday",
  "Tuesday",
  "Wednesday",
  "Thursday",
  "Friday",
  "Saturday",
  "Sunday",
];
/** Goods to count, always in the plural. */
export const GOODS: readonly string[] = [
  "apples",
  "pears",
  "eggs",
  "nuts",
  "plums",
  "shells",
  "coins",
  "cakes",
  "cards",
  "roses",
];

/** "a red kite", "an old kite". */
export const a = (words: string): string => `${/^[aeiou]/.test(words) ? "an" : "a"} ${words}`;
export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** Direct speech, followed by its speaker: `"It is red," said Mia.`; a question keeps its mark. */
export const quoted = (text: string, teller: string): string => `"${text.replace(/\.$/, ",")}" ${teller}.`;
