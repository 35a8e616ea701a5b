/** The command line as a program of its own, from the sources: what tests start. */
import { main } from "../../src/main.ts";

process.exitCode = await main(process.argv.slice(2));
