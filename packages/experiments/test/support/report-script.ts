/** Writes the report of the sweep in the folder of the first argument; prints the seconds of computing and the most memory, in MB. */
import { writeReport } from "../../src/node/report.ts";

const [folder] = process.argv.slice(2);
const { runs } = await writeReport(folder!, folder!, { title: "many" });
const { user, system } = process.cpuUsage();
console.log(
  JSON.stringify({ runs, seconds: (user + system) / 1e6, megabytes: process.resourceUsage().maxRSS / 1e3 }),
);
