/** Short stories about two people and a thing, which stay consistent: the scene keeps track of who has the thing. */
import { pair } from "./facts.ts";
import {
  a,
  ANIMALS,
  at,
  capital,
  COLOURS,
  DAYS,
  FEELINGS,
  type Person,
  PLACES,
  SIZES,
  THINGS,
  to,
} from "./lexicon.ts";
import type { Rng } from "./rng.ts";

interface Scene {
  rng: Rng;
  /** The person who has the thing; below, the other person. */
  owner: Person;
  other: Person;
  thing: string;
}

function handOver(scene: Scene): void {
  [scene.owner, scene.other] = [scene.other, scene.owner];
}

/** What can happen to the owner, the other and the thing; an event may change who has it. */
const EVENTS: readonly ((scene: Scene) => string)[] = [
  ({ rng, owner, other, thing }) =>
    `${owner.name} lost ${owner.their} ${thing} ${at(rng.pick(PLACES))}. ${other.name} found it and brought it back to ${owner.them}.`,
  (scene) => {
    handOver(scene);
    return `${scene.other.name} gave the ${scene.thing} to ${scene.owner.name}. Now ${scene.owner.name} has the ${scene.thing}.`;
  },
  ({ rng, owner, other, thing }) =>
    `${owner.name} hid the ${thing} ${at(rng.pick(PLACES))}. ${other.name} looked for it all day, but ${other.they} did not find it.`,
  (scene) => {
    handOver(scene);
    const { rng, owner, other, thing } = scene;
    return `${other.name} sold the ${thing} to ${owner.name} for ${rng.range(2, 20)} coins. ${capital(owner.they)} took it ${to(rng.pick(PLACES))}.`;
  },
  ({ rng, owner, other, thing }) =>
    `${owner.name} met ${other.name} ${at(rng.pick(PLACES))}. They talked about the ${thing} until it was dark.`,
  ({ rng, owner }) => {
    const animal = rng.pick(ANIMALS);
    return `${owner.name} saw ${a(`${rng.pick(SIZES)} ${animal.name}`)} and gave it some ${animal.eats}.`;
  },
  ({ rng, owner }) => `Then ${owner.name} was ${rng.pick(FEELINGS)} and went home.`,
];

const WHEN: readonly string[] = [
  "One day",
  "One morning",
  "In the evening",
  "Long ago",
  ...DAYS.map((day) => `On ${day}`),
];

export function adventure(rng: Rng): string {
  const [owner, other] = pair(rng);
  const { name: thing, does } = rng.pick(THINGS);
  const coloured = a(`${rng.pick(COLOURS)} ${thing}`);
  const openings: readonly (() => string)[] = [
    () => `${owner.name} went ${to(rng.pick(PLACES))} with ${coloured}.`,
    () => `${owner.name} was ${at(rng.pick(PLACES))} and had ${coloured} with ${owner.them}.`,
    () =>
      `${owner.name} wanted ${a(thing)} that ${does}. ${capital(owner.they)} bought one ${at(rng.pick(PLACES))}.`,
    () => `${owner.name} found ${coloured} ${at(rng.pick(PLACES))}.`,
  ];
  const scene: Scene = { rng, owner, other, thing };
  const opening = `${rng.pick(WHEN)} ${rng.pick(openings)()}`;
  const remark = rng.chance(0.4) ? [`The ${thing} ${does}.`] : [];
  const events = rng.sample(EVENTS, rng.range(1, 3)).map((event) => event(scene));
  return [opening, ...remark, ...events].join(" ");
}
