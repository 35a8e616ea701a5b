/** The command line as a program of its own, run from the compiled packages; tests start it. */
import { main } from "../../dist/main.js";

process.exitCode = await main(process.argv.slice(2));
