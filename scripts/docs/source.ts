/** Source files as pages: numbered lines (#L12), and an anchor for each declaration and member (#Tensor, #Tensor.add). */
import { extname } from "node:path";
import ts from "typescript";
import { highlight } from "./markdown.ts";

/** The names declared in a file, with the line (from 0) at which each begins, its comment included. */
export function declarations(file: string, code: string): Map<string, number> {
  const source = ts.createSourceFile(file, code, ts.ScriptTarget.Latest, true);
  const found = new Map<string, number>();
  const add = (name: ts.Node | undefined, at: ts.Node, owner = ""): void => {
    if (name === undefined) return;
    const full = owner + name.getText(source);
    const start = ts.getJSDocCommentsAndTags(at)[0]?.getStart(source) ?? at.getStart(source);
    if (!found.has(full)) found.set(full, source.getLineAndCharacterOfPosition(start).line);
  };
  for (const statement of source.statements) {
    if (ts.isVariableStatement(statement)) {
      for (const { name } of statement.declarationList.declarations) add(name, statement);
    } else if (
      ts.isFunctionDeclaration(statement) ||
      ts.isTypeAliasDeclaration(statement) ||
      ts.isEnumDeclaration(statement)
    ) {
      add(statement.name, statement);
    } else if (ts.isClassDeclaration(statement) || ts.isInterfaceDeclaration(statement)) {
      add(statement.name, statement);
      const owner = `${statement.name?.text ?? "default"}.`;
      for (const member of statement.members) add(member.name, member, owner);
    }
  }
  return found;
}

/** The page's content. */
export function sourcePage(file: string, code: string): string {
  const anchors = new Map<number, string[]>();
  const isCode = /\.(ts|mjs|js)$/.test(file);
  for (const [name, line] of isCode ? declarations(file, code) : [])
    anchors.set(line, [...(anchors.get(line) ?? []), name]);
  const lines = highlight(code.trimEnd(), extname(file).slice(1)).split("\n");
  const numbered = lines.map((line, i) => {
    const marks = (anchors.get(i) ?? []).map((name) => `<i id="${name}"></i>`).join("");
    return `${marks}<i class="n" id="L${i + 1}" data-n="${i + 1}"></i>${line}`;
  });
  return `<h1 class="path">${file}</h1>\n<pre class="source" tabindex="0"><code>${numbered.join("\n")}</code></pre>\n`;
}
