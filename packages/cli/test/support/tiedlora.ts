/** The command line as a program of its own, run from the sources; tests start it. */
import { main } from "../../src/main.ts";

process.exitCode = await main(process.argv.slice(2));
