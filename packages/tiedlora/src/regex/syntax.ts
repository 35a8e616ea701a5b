/** The syntax tree of a regular expression, and the error for an invalid one. */

/** Tests whether a character, given by its UTF-16 code, is in a set. */
export type CharTest = (code: number) => boolean;
/** Tests whether an assertion holds at a position of a text. */
export type PositionTest = (text: string, at: number) => boolean;

export type Ast =
  | { readonly type: "char"; readonly test: CharTest }
  | { readonly type: "assert"; readonly test: PositionTest }
  | { readonly type: "look"; readonly body: Ast; readonly negative: boolean }
  | { readonly type: "sequence"; readonly parts: readonly Ast[] }
  | { readonly type: "choice"; readonly options: readonly Ast[] }
  | { readonly type: "repeat"; readonly body: Ast; readonly min: number; readonly max: number };

export class PatternError extends Error {
  constructor(source: string, at: number, problem: string) {
    const shown = source.length > 200 ? `${source.slice(0, 197)}...` : source;
    super(`regular expression ${JSON.stringify(shown)}, position ${at}: ${problem}`);
    this.name = "PatternError";
  }
}
