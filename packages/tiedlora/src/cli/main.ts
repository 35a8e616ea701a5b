/** The command line: runs `argv` (without node and script) and gives the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  await Promise.resolve();
  console.error(`unknown command: ${argv[0] ?? "(none)"}`);
  return 2;
}
