/**
 * Makes the pictures of a sweep's report for the documentation: quality against parameters, and against rank.
 *
 *   npx tsx --conditions=@tiedlora/source scripts/report-pictures.ts docs/paper-grid/report.html docs/images/paper-grid
 *
 * writes docs/images/paper-grid-size.png and docs/images/paper-grid-rank.png.
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { launch } from "../test/support/browser.ts";

const [report, prefix] = process.argv.slice(2);
if (report === undefined || prefix === undefined)
  throw new Error("report-pictures: expected a report.html, and how the pictures' names begin");
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1220, height: 900 }, colorScheme: "light" });
  await page.goto(pathToFileURL(resolve(report)).href);
  for (const section of ["size", "rank"]) {
    const path = `${prefix}-${section}.png`;
    await page.locator(`[data-section="${section}"]`).screenshot({ path });
    console.log(path);
  }
} finally {
  await browser.close();
}
