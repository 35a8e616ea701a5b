/** The settings of the hub's Python library, from the same variables and files, so that both use one cache and one token. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** What the environment says about the hub. */
export interface HubSettings {
  readonly endpoint: string | undefined;
  readonly token: string | undefined;
  /** The folder of the cache. */
  readonly cache: string;
  /** Whether nothing may be asked of the network. */
  readonly offline: boolean;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Reads HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, and what these had as names earlier. */
export function hubSettings(env: Env = process.env): HubSettings {
  const first = (...names: string[]): string | undefined =>
    names.map((name) => env[name]?.trim()).find(Boolean);
  const truth = (...names: string[]): boolean => /^(1|true|yes|on)$/i.test(first(...names) ?? "");
  const home = expand(first("HF_HOME") ?? join(first("XDG_CACHE_HOME") ?? "~/.cache", "huggingface"));
  const tokenFile = expand(first("HF_TOKEN_PATH") ?? join(home, "token"));
  const implicit = !truth("HF_HUB_DISABLE_IMPLICIT_TOKEN");
  return {
    endpoint: first("HF_ENDPOINT"),
    token: implicit ? (first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") ?? contentOf(tokenFile)) : undefined,
    cache: expand(first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ?? join(home, "hub")),
    offline: truth("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
  };
}

function expand(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

function contentOf(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}
