import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import { compilePattern, PatternWork } from "../src/regex/pattern.ts";
import { PatternError } from "../src/regex/syntax.ts";

/** A pattern that matches exactly the given text. */
const escapePattern = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

suite("patterns from files", () => {
  test("match as JavaScript's own engine does", () => {
    const atom = fc.constantFrom(
      "a",
      "b",
      ".",
      "[ab]",
      "[^a]",
      "[a-c]",
      "\\w",
      "\\d",
      "\\.",
      "(?:a|b)",
      "(?=a)",
      "(?!b)",
      "\\b",
    );
    const piece = fc
      .tuple(atom, fc.constantFrom("", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"))
      .map(([body, times]) => (/^(\(\?[=!]|\\b)/.test(body) ? body : body + times));
    const branch = fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join(""));
    const pattern = fc
      .array(branch, { minLength: 1, maxLength: 3 })
      .map((branches) => `(${branches.join("|")})`);
    const text = fc.string({ unit: fc.constantFrom("a", "b", "c", ".", "1", "_"), maxLength: 8 });
    fc.assert(
      fc.property(fc.array(pattern, { minLength: 1, maxLength: 2 }), text, (patterns, text) => {
        const source = patterns.join("");
        assert.equal(
          compilePattern(source).fullMatch(text),
          new RegExp(`^(?:${source})$`).test(text),
          source,
        );
      }),
      { numRuns: 3000 },
    );
  });

  test("know Python's spellings", () => {
    assert.ok(compilePattern("(?P<layer>\\d+)").fullMatch("12"));
    assert.ok(compilePattern("(?i)Q_PROJ").fullMatch("q_proj"));
    assert.ok(compilePattern("\\Aq_proj\\Z").fullMatch("q_proj"));
    assert.ok(compilePattern("^(?!.*visual).*(?:q_proj|v_proj)$").fullMatch("model.layers.0.q_proj"));
    assert.ok(!compilePattern("^(?!.*visual).*(?:q_proj|v_proj)$").fullMatch("visual.layers.0.q_proj"));
  });

  test("cannot hang: what takes a backtracking engine for ever takes no time", () => {
    const started = performance.now();
    for (const source of ["(a+)+b", "(a|aa)+b", "(.*a){20}b", "(a*)*b", "((a?){30}){30}b"]) {
      assert.equal(compilePattern(source).fullMatch("a".repeat(200)), false);
    }
    assert.ok(performance.now() - started < 5000);
  });

  test("that are not supported or not well formed are refused by position", () => {
    for (const [source, problem] of [
      ["(a)\\1", /position 5: back-references/],
      ["(?<=a)b", /this kind of group/],
      ["(a", /not closed/],
      ["a)", /a \) without its \(/],
      ["[a", /\[ that is not closed/],
      ["*a", /nothing that \* could repeat/],
      ["a{2000}", /at most 1000 times/],
      ["((a{900}){900}){9}", /too large/],
      ["a++", /possessive/],
      ["\\p", /\\p is not supported/],
      ["(".repeat(200), /too deep/],
    ] as const) {
      assert.throws(
        () => compilePattern(source),
        (error) => error instanceof PatternError && problem.test(error.message),
        source,
      );
    }
  });

  test("arbitrary text is refused or compiled, and an escaped text matches itself alone", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (source, text) => {
        try {
          compilePattern(source).fullMatch(text);
        } catch (error) {
          assert.ok(error instanceof PatternError);
        }
        if (!text.includes("\n")) assert.equal(compilePattern(escapePattern(text)).fullMatch(text), true);
        if (source !== text) assert.equal(compilePattern(escapePattern(text)).fullMatch(source), false);
      }),
      { numRuns: 1000 },
    );
  });
});

suite("patterns that would take all time or memory", () => {
  const nested = (depth: number): string => "(?=(.*".repeat(depth) + "q_proj" + ")*)".repeat(depth);
  const PATH = "model.layers.11.self_attn.q_proj";

  /** Patterns that once took seconds or gigabytes, or never ended. */
  const HOSTILE: readonly string[] = [
    "(?=".repeat(24) + "a" + ".*)".repeat(24),
    `${"(?=(?:.*".repeat(12)}x${")*)".repeat(12)}.*`,
    nested(9),
    "(?:(?=.*a)(?=.*b)(?=.*c).){1000}",
    `(?:${"(?=.{900})".repeat(14)}.){1000}`,
    "((((((){1000}){1000}){1000}){1000}){1000}){1000}",
    "(?:(?:a{1000}){1000}){1000}",
    "(a+)+$",
    "(.*)*".repeat(20),
  ];
  for (const source of HOSTILE) {
    test(source.length > 60 ? `${source.slice(0, 60)}... (${source.length})` : source, () => {
      const before = process.cpuUsage();
      try {
        const pattern = compilePattern(source);
        for (const text of [PATH, "a".repeat(99), `${"ab".repeat(50)}!`]) pattern.fullMatch(text);
      } catch (error) {
        assert.ok(error instanceof PatternError, String(error));
        assert.ok(error.message.length < 400);
      }
      assert.ok(process.cpuUsage(before).user < 2e6, "more than 2 s");
    });
  }

  test("the program of a pattern is bounded with its look-aheads", () => {
    assert.throws(() => compilePattern("(?:(?=a{500})b){1000}"), /too large when repeats are written out/);
    assert.doesNotThrow(() => compilePattern("(?:(?=a{50})b){100}"));
  });

  test("the patterns of a file are bounded together", () => {
    const work = new PatternWork();
    assert.throws(() => {
      for (let i = 0; i < 1000; i++) compilePattern(`(?:a{900}b){9}${i}`, work);
    }, /too large together/);
  });

  test("nested look-aheads say what they said before", () => {
    const source = ".*(?=q(?=_(?!x)(?=pr)).*)(?!k)q_.*";
    for (const text of [PATH, "q_xx", "q_pr", "k_proj", "aq_"])
      assert.equal(compilePattern(source).fullMatch(text), new RegExp(`^(?:${source})$`).test(text), text);
  });
});
