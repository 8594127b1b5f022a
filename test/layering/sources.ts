/** The source files of the repository and what they import, read as text: no compiler API needed. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export interface Source {
  /** Path from the root, with forward slashes. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

export interface Import {
  readonly from: string;
  /** Path from the root of a relative import, else the bare name. */
  readonly target: string;
  readonly relative: boolean;
}

const AREAS = ["core", "backends", "cli", "bench", "viz", "test", "scripts"];
const EXTENSIONS = /\.(ts|mjs|cc|h|cuh|cu|wgsl|css|html)$/;

function files(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = posix.join(folder, entry.name);
    if (entry.isDirectory()) return files(path);
    return EXTENSIONS.test(entry.name) && !entry.name.endsWith(".d.ts") ? [path] : [];
  });
}

const STATEMENT = /(?:^|\n)\s*(?:import|export)\s+(?:type\s+)?(?:[\w*{][^"'`;]*?\sfrom\s+)?["']([^"']+)["']/g;
const DYNAMIC = /\bimport\(\s*["']([^"']+)["']\s*\)/g;
const GLOB = /\bimport\.meta\.glob(?:<[\s\S]*?>)?\(([^)]*)\)/g;

/** Statements, `import("...")` and the patterns of Vite's import.meta.glob. */
export function importsOf(path: string, text: string): Import[] {
  const globs = [...text.matchAll(GLOB)].flatMap(([, patterns]) => [...patterns.matchAll(/["'](\.[^"']*)["']/g)]);
  const found = [...text.matchAll(STATEMENT), ...text.matchAll(DYNAMIC), ...globs].map((match) => match[1]);
  return found.map((from) => {
    const relative = from.startsWith(".");
    return { from, relative, target: relative ? posix.normalize(posix.join(dirname(path), from)) : from };
  });
}

export const SOURCES: readonly Source[] = AREAS.flatMap(files).map((path) => {
  const text = readFileSync(join(ROOT, path), "utf8");
  return { path, text, imports: /\.(ts|mjs)$/.test(path) ? importsOf(path, text) : [] };
});

/** core, backends/cuda, backends/wasm, backends/webgpu, backends (the list), cli, bench, viz, test, scripts. */
export function areaOf(path: string): string {
  const [first, second, third] = path.split("/");
  return first === "backends" && third !== undefined ? `${first}/${second}` : first;
}
