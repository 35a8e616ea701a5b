/**
 * The same training in tiedlora, jax-js, tfjs and, if Debian's package is installed, PyTorch: with equal initial weights and
 * batches. Losses are compared first; then all take turns in one run, so that a busy machine slows down all of them.
 *
 *   npm run bench:peers                      everything (about 20 minutes on two cores)
 *   npm run bench:peers -- medium cpu        comparisons whose name contains every word
 *   npm run bench:peers -- --quick           the CPU's main rows, in about a minute
 *   npm run bench:peers -- --against torch   only the peers whose name contains the word
 *   npm run bench:peers -- --node 24         all JavaScript participants on another version of Node, which npm installs
 *   npm run bench:peers -- --json            a line per comparison: name, ratio (peer's time ÷ ours, against the fastest
 *                                            configuration of the peer: the median over turns), low, high (its interval
 *                                            of 95 %), turns, goal, ours_ms, peer_ms, peer
 *
 * Exits 1 if losses disagree or a process fails. A missed goal is only printed.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { GROWTHS, LINEAR, MANY_LENGTHS, STARTS, type StepComparison, STEPS } from "./peers/comparisons.ts";
import { Child } from "./peers/child.ts";
import {
  javaScriptParticipants,
  nodeProgram,
  type Participant,
  prepareJavaScript,
  pytorch,
} from "./peers/participants.ts";
import {
  ALTERNATIONS,
  compareSteps,
  firstSteps,
  median,
  type Ratio,
  ratioOf,
  type Result,
  stepMs,
  totals,
} from "./peers/rounds.ts";
import { gptFlop } from "./problems.ts";

const { values, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    node: { type: "string" },
    against: { type: "string", default: "" },
    seconds: { type: "string" },
  },
});
const seconds = Number(values.seconds ?? (values.quick ? 2 : 20));
if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds}: expected a number above 0`);

interface Row {
  readonly name: string;
  readonly ratio: number;
  readonly goal: number;
  readonly ours: number;
  readonly peer: number;
  readonly unit: "ms" | "mb";
  readonly peerName: string;
  /** Where turns were compared one by one. */
  readonly measured?: Ratio;
}

function print({ name, ratio, goal, ours, peer, unit, peerName, measured }: Row): void {
  const [low, high] = measured?.interval ?? [];
  if (values.json) {
    const turns = measured?.turns;
    const line = {
      name,
      ratio,
      low,
      high,
      turns,
      goal,
      [`ours_${unit}`]: ours,
      [`peer_${unit}`]: peer,
      peer: peerName,
    };
    console.log(
      JSON.stringify(line, (_, x: unknown) => (typeof x === "number" ? Number(x.toPrecision(4)) : x)),
    );
    return;
  }
  const verdict = ratio >= goal ? "reached" : "MISSED";
  const shown = (x: number): string => `${x.toFixed(x < 10 ? 2 : 0)} ${unit === "mb" ? "MB" : "ms"}`;
  const within =
    low === undefined || high === undefined
      ? ""
      : ` [${low.toFixed(2)}, ${high.toFixed(2)}] in ${measured!.turns} turns`;
  console.log(
    `  ${ratio.toFixed(2)}×${within}, goal ${goal}× ${verdict}: ${shown(ours)} against ${shown(peer)} (${peerName})`,
  );
}

/** The processor's widest vectors, which decide what PyTorch can do: known on Linux alone. */
function vectors(): string {
  if (!existsSync("/proc/cpuinfo")) return "";
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1]?.split(" ") ?? [];
  const widest = [["avx512f", "AVX-512"], ["avx2", "AVX2"], ["avx", "AVX"]].find(([flag]) => flags.includes(flag!)); // prettier-ignore
  return widest === undefined ? "" : `, ${widest[1]}`;
}

function note(text: string): void {
  if (values.json) console.error(text);
  else console.log(text);
}

const wanted = ({ name, quick }: { name: string; quick?: true }): boolean =>
  (!values.quick || quick === true) && words.every((word) => name.toLowerCase().includes(word.toLowerCase()));

const node = nodeProgram(values.node);
const revectorized = Number.parseInt(node.version) >= 24;
prepareJavaScript();
const torch = pytorch();
let failed = false;

/** Whether a participant takes part in this run. The quick run leaves out tfjs, which was never the fastest. */
function isCompared({ kind, label }: Participant): boolean {
  if (values.quick && label.startsWith("tfjs")) return false;
  return kind === "ours" || label.toLowerCase().includes(values.against.toLowerCase());
}

function participantsOf({ backend, javascript }: StepComparison): Participant[] {
  const all = javaScriptParticipants(backend, node);
  const others = [...all, ...(backend === "cpu" && typeof torch !== "string" ? [torch] : [])];
  return others.filter((one) => isCompared(one) && (one.kind !== "javascript" || javascript !== undefined));
}

function rowsOf(comparison: StepComparison, results: readonly Result[]): Row[] {
  const ours = results.find(({ participant }) => participant.kind === "ours")!;
  const rows: Row[] = [];
  for (const kind of ["javascript", "pytorch"] as const) {
    const peers = results.filter(({ participant }) => participant.kind === kind);
    const goal = comparison[kind]?.[revectorized ? 1 : 0];
    if (peers.length === 0) continue;
    const fastest = peers.reduce((a, b) => (b.ms < a.ms ? b : a));
    const peerName = fastest.participant.label;
    const { name } = comparison;
    if (goal !== undefined) {
      const measured = ratioOf(fastest.turns, ours.turns);
      rows.push({
        name,
        ratio: measured.median,
        measured,
        goal,
        ours: ours.ms,
        peer: fastest.ms,
        unit: "ms",
        peerName,
      });
    }
    const memoryGoal = comparison.memory?.[kind];
    if (memoryGoal !== undefined) {
      const [a, b] = [ours.peakMb, fastest.peakMb];
      rows.push({
        name: `${name}: peak memory`,
        ratio: b / a,
        goal: memoryGoal,
        ours: a,
        peer: b,
        unit: "mb",
        peerName,
      });
    }
  }
  return rows;
}

async function steps(comparison: StepComparison): Promise<void> {
  const participants = participantsOf(comparison);
  note(comparison.name);
  const { results, faults, agreement } = await compareSteps(participants, comparison, seconds, values.quick);
  for (const fault of faults) {
    failed = true;
    note(`  FAILED: ${fault}`);
  }
  for (const { participant, ms, best, count, peakMb } of results) {
    const numbers = `${ms.toFixed(1).padStart(9)} ms (best ${best.toFixed(1)}, ${count} steps), ${peakMb.toFixed(0)} MB`;
    note(`  ${participant.label.padEnd(44)} ${numbers}`);
  }
  if (results.length > 1) note(`  losses agree within ${agreement.toExponential(1)}`);
  if (results.some(({ participant }) => participant.kind === "ours"))
    rowsOf(comparison, results).forEach(print);
}

/** Whole trainings of 64 lengths by turns, each in a new process: against JavaScript one turn, against PyTorch as many as for steps. */
async function manyLengths(): Promise<void> {
  const { name, work, steps, ...goals } = MANY_LENGTHS;
  if (!wanted({ name })) return;
  note(name);
  const [ours, ...peers] = participantsOf({ name, work, backend: "cpu", javascript: [goals.javascript, goals.javascript] }); // prettier-ignore
  for (const peer of peers) {
    const kind = peer.kind === "pytorch" ? "pytorch" : "javascript";
    let turns: number[][];
    try {
      turns = await totals([ours!, peer], work, steps[kind], kind === "pytorch" ? ALTERNATIONS : 1);
    } catch (error) {
      failed = true;
      note(`  FAILED: ${peer.label}: ${(error as Error).message}`);
      continue;
    }
    const measured = ratioOf(turns[1]!, turns[0]!);
    const [own, other] = turns.map(median) as [number, number];
    print({ name: `${name}, ${peer.label}`, ratio: measured.median, measured, goal: goals[kind], ours: own, peer: other, unit: "ms", peerName: peer.label }); // prettier-ignore
  }
}

note(`${cpus().length} × ${cpus()[0]?.model.trim() ?? "?"}${vectors()}, Node ${node.version}`);
if (typeof torch === "string") note(torch);
const compared = STEPS.filter(wanted).filter((comparison) => participantsOf(comparison).length > 1);
if (compared.length === 0 && STEPS.some(wanted)) {
  throw new Error(
    `--against ${values.against}: no peer of these comparisons is called that; expected a part of "jax-js", "tfjs" or "PyTorch"`,
  );
}
for (const comparison of compared) await steps(comparison);
for (const { name, work, backend, goal, cachedGoal } of STARTS.filter(wanted)) {
  note(name);
  const all = javaScriptParticipants(backend, node).filter(isCompared);
  const folder = mkdtempSync(join(tmpdir(), "peers-cache-"));
  const [ourselves] = all;
  const starts = [
    ...all.map((one) => ({ label: one.label, command: one.command(work, backend) })),
    { label: "tiedlora, second start", command: ourselves!.command(work, backend, folder) },
  ];
  const times = await firstSteps(
    starts.map(
      ({ command }) =>
        () =>
          new Child(command),
    ),
    values.quick ? 2 : 6,
  );
  rmSync(folder, { recursive: true, force: true });
  const results = starts.map(({ label }, i) => ({ label, list: times[i]!, ms: median(times[i]!) }));
  for (const { label, ms } of results) note(`  ${label.padEnd(44)} ${ms.toFixed(0).padStart(7)} ms`);
  const [first, peers, cached] = [results[0]!, results.slice(1, -1), results.at(-1)!];
  if (peers.length === 0) continue;
  const fastest = peers.reduce((x, y) => (y.ms < x.ms ? y : x));
  for (const [row, ours, least] of [
    [name, first, goal],
    [
      name.replace("first step of a new process", "the same, with what an earlier process kept"),
      cached,
      cachedGoal,
    ],
  ] as const) {
    const measured = ratioOf(fastest.list, ours.list);
    print({ name: row, ratio: measured.median, measured, goal: least, ours: ours.ms, peer: fastest.ms, unit: "ms", peerName: fastest.label }); // prettier-ignore
  }
}
await manyLengths();
const [ourselves] = javaScriptParticipants("cpu", node);
for (const { name, from, to } of values.quick ? [] : GROWTHS.filter(wanted)) {
  note(name);
  const [small, large] = await stepMs(
    [from, to].map(
      (size) => () => new Child(ourselves!.command({ kind: "gpt", size, method: "full" }, "cpu")),
    ),
    seconds,
  );
  const linear = (small! * gptFlop(to, "full")) / gptFlop(from, "full");
  print({
    name,
    ratio: linear / large!,
    goal: LINEAR,
    ours: large!,
    peer: linear,
    unit: "ms",
    peerName: "linear",
  });
}
if (failed) process.exitCode = 1;
