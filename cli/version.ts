import { readFileSync } from "node:fs";

/** The version in package.json: beside cli/ in the sources, one folder up in dist/. */
export function version(): string {
  for (const path of ["../package.json", "../../package.json"]) {
    try {
      return JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")).version;
    } catch {
      // Not here: the other layout.
    }
  }
  return "unknown";
}
