/** Finds the lines on which a source declares its names, for links such as `tensor.ts#Tensor.add`. */
import ts from "typescript";

/** The names that a file declares, each with the line (from 0) on which its declaration or its comment begins. */
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
