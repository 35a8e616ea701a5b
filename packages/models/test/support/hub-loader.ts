/** Loads a model by name as a process of its own: `hub-loader.ts NAME`. Prints the directory, and notes to stderr. */
import { downloadModel } from "../../src/node.ts";

const onNote = (note: string): void => void process.stderr.write(`${note}\n`);
process.stdout.write((await downloadModel(process.argv[2]!, { onNote })).directory);
