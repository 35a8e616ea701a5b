/** Programs as text, for the messages of failed tests. */
import type { Instr, LoopKernel, Operand, Program, Step, Store } from "@tiedlora/core";

/** A program as text, one line per instruction, for the message of a failing case. */
export function printProgram(program: Program): string {
  const buffers = program.buffers.map(
    (b, i) =>
      `  buffer ${i}: ${b.kind}, ${b.bytes} bytes${b.aliasOf === undefined ? "" : `, in place of ${b.aliasOf}`}`,
  );
  return [...buffers, ...program.steps.map((step, i) => `  step ${i}: ${printStep(step)}`)].join("\n");
}

function printStep(step: Step): string {
  if (step.type === "loop")
    return `loop over [${step.outer.join(", ")}] × [${step.inner.join(", ")}]\n${printLoop(step)}`;
  const { params, inputs, outputs, name } = step;
  const shown = JSON.stringify(params, (key, value: unknown) => (key === "epilogue" ? "below" : value));
  const lines = [
    ...inputs.map((o) => `    in  ${printOperand(o)}`),
    ...outputs.map((o) => `    out ${printOperand(o)}`),
  ];
  if ("epilogue" in params && params.epilogue) lines.push("    epilogue:", printLoop(params.epilogue));
  return `${name} ${shown}\n${lines.join("\n")}`;
}

function printLoop({ body, stores }: Pick<LoopKernel, "body" | "stores">): string {
  const lines = body.map((instr, i) => `    %${i}: ${instr.dtype} = ${printInstr(instr)}`);
  return [...lines, ...stores.map((s) => `    ${printStore(s)}`)].join("\n");
}

const printStore = ({ to, value }: Store): string => `store %${value} to ${printOperand(to)}`;

function printInstr(instr: Instr): string {
  switch (instr.op) {
    case "load":
      return `load ${printOperand(instr.from)}`;
    case "const":
      return String(instr.value);
    case "scalar":
      return `scalar ${instr.slot}`;
    case "index":
      return `index along axis ${instr.axis}`;
    case "product":
      return "product";
    case "cast":
      return `cast %${instr.a} to ${instr.to}`;
    case "reduce":
      return `reduce ${instr.kind} %${instr.a}`;
    case "where":
      return `where %${instr.a} ? %${instr.b} : %${instr.c}`;
    default:
      return "b" in instr ? `${instr.op} %${instr.a}, %${instr.b}` : `${instr.op} %${instr.a}`;
  }
}

function printOperand({ buffer, dtype, view }: Operand): string {
  const ranges = view.valid?.map((r) => (r ? `${r[0]}…${r[1]}` : "all")).join(", ");
  const moving = (view.moving ?? []).map(({ slot, factor }) => `${factor} · scalar ${slot}`);
  const valid = ranges === undefined ? "" : ` where [${ranges}]`;
  return `buffer ${buffer} (${dtype}) at ${[view.offset, ...moving].join(" + ")} + [${view.strides.join(", ")}]${valid}`;
}
