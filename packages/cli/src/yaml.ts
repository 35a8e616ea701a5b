/** Settings as a YAML file that a person can read and edit. */
import { isRecord } from "@tiedlora/core";
import { stringify } from "yaml";
import { entries, nameOf, type Settings } from "./settings.ts";

/** All settings with their descriptions; settings without a value are commented out. */
export function settingsYaml<T>(settings: Settings<T>, values: Partial<T>): string {
  const lines: string[] = [];
  let group = "";
  for (const [key, setting] of entries(settings)) {
    if (setting.group !== group) {
      group = setting.group;
      lines.push("", `# --- ${group}`);
    }
    const value = values[key] ?? undefined;
    const about = `# ${setting.about}`;
    if (value === undefined) lines.push(about, `# ${nameOf(key)}:`);
    else lines.push(about, `${nameOf(key)}: ${plain(value)}`);
  }
  return `${lines.join("\n").trimStart()}\n`;
}

function plain(value: unknown): string {
  if (value instanceof RegExp) return JSON.stringify(String(value).replace(/\/[a-z]*$/, "/"));
  if (Array.isArray(value)) return value.length === 0 ? "none" : `[${value.join(", ")}]`;
  if (isRecord(value)) return stringify(value, { lineWidth: 0, collectionStyle: "flow" }).trimEnd();
  return stringify(value, { lineWidth: 0, defaultStringType: "PLAIN" }).trimEnd();
}
