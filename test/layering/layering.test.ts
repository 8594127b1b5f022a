/** Who may import whom, and other rules of the house that can be read off the text (design section 7). */
import { execFileSync } from "node:child_process";
import { builtinModules } from "node:module";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { areaOf, importsOf, ROOT, SOURCES } from "./sources.ts";

/** What each part may import beside itself: core <- backends <- cli, bench; viz reads formats and core. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  core: [],
  "backends/cuda": ["core"],
  "backends/wasm": ["core"],
  "backends/webgpu": ["core"],
  backends: ["core", "backends/cuda", "backends/wasm", "backends/webgpu"],
  bench: ["core", "backends", "backends/cuda", "backends/wasm", "backends/webgpu"],
  viz: ["core"],
  cli: ["core", "backends", "backends/cuda", "backends/wasm", "backends/webgpu", "bench", "viz"],
};

/** Files that may import more than their part, and why. */
const REACHES: Record<string, { readonly areas: readonly string[]; readonly why: string }> = {
  "viz/ui/run.ts": { areas: ["backends/wasm", "backends/webgpu"], why: "the page runs a backend itself" },
};

/** Longer than 400 lines, and why that is better than splitting. */
const LONG_FILES: Record<string, string> = {
  "backends/cuda/native/include/fused_a2a.h": "the whole C interface with its contracts: one header to include",
  "backends/cuda/native/api.cc": "one wrapper per function of that header, in its order",
  "backends/cuda/native/selftest/checks.cc": "a list of short checks",
  "backends/cuda/emulation/runtime.cc": "devices, streams and events of the emulation share private state",
  "backends/cuda/emulation/nccl/sockets.cc": "one state machine per connection, stepped by the streams",
  "backends/cuda/kernels/layout.cuh": "the passes of one layout, in the order in which they run",
  "cli/simulation/predict.ts": "every option of simulate and the text of its report",
  "test/unit/routing/import.test.ts": "one block per imported format",
};

const PRODUCT = SOURCES.filter(({ path }) => areaOf(path) in MAY_IMPORT);
const isTest = (path: string) => path.startsWith("test/");
const isBuiltin = (name: string) => name.startsWith("node:") || builtinModules.includes(name);

test("the scan sees every part and the imports in it", () => {
  for (const area of Object.keys(MAY_IMPORT)) expect(PRODUCT.some(({ path }) => areaOf(path) === area)).toBe(true);
  const fused = SOURCES.find(({ path }) => path === "core/functions/fused.ts");
  expect(fused?.imports.map(({ target }) => target)).toContain("core/backend.ts");
  const list = SOURCES.find(({ path }) => path === "backends/index.ts");
  expect(list?.imports.map(({ target }) => target)).toContain("backends/wasm/index.ts");
  const globs = `import.meta.glob<{ open(): void }>("../a.ts"); import.meta.glob(["./*.ts", "../../b/*.wasm"], { query: "?url" });`;
  expect(importsOf("viz/ui/x.ts", globs).map(({ target }) => target)).toEqual(["viz/a.ts", "viz/ui/*.ts", "b/*.wasm"]);
});

describe("imports", () => {
  test.each(Object.entries(MAY_IMPORT))("%s imports itself and %j", (area, allowed) => {
    const wrong = PRODUCT.filter(({ path }) => areaOf(path) === area).flatMap(({ path, imports }) => {
      const may = [area, ...allowed, ...(REACHES[path]?.areas ?? [])];
      return imports
        .filter(({ relative, target }) => relative && !may.includes(areaOf(target)))
        .map(({ target }) => `${path} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  test.each(Object.entries(REACHES))("%s imports more than its part: %j", (path, { areas }) => {
    const reached = SOURCES.find((source) => source.path === path)?.imports.map(({ target }) => areaOf(target));
    expect(areas.filter((one) => !reached?.includes(one))).toEqual([]);
  });

  test("core imports no package and no Node built-in", () => {
    const wrong = SOURCES.filter(({ path }) => areaOf(path) === "core").flatMap(({ path, imports }) =>
      imports.filter(({ relative }) => !relative).map(({ from }) => `${path} imports ${from}`),
    );
    expect(wrong).toEqual([]);
  });

  test("what a page loads imports no Node built-in: viz/model, viz/views, viz/ui", () => {
    const page = SOURCES.filter(({ path }) => /^viz\/(model|views|ui)\//.test(path));
    expect(page.length).toBeGreaterThan(0);
    const wrong = page.flatMap(({ path, imports }) =>
      imports.filter(({ from }) => isBuiltin(from)).map(({ from }) => `${path} imports ${from}`),
    );
    expect(wrong).toEqual([]);
  });

  test("relative imports name an existing file with its extension", () => {
    const known = new Set(SOURCES.map(({ path }) => path));
    const wrong = PRODUCT.flatMap(({ path, imports }) =>
      imports
        .filter(({ relative, target }) => relative && /\.(ts|mjs)$/.test(target) && !known.has(target))
        .map(({ from }) => `${path} imports ${from}`),
    );
    expect(wrong).toEqual([]);
  });

  test("no module of the product imports itself in a circle, types included", () => {
    const byPath = new Map(PRODUCT.map((source) => [source.path, source]));
    const state = new Map<string, "open" | "done">();
    const circles: string[] = [];
    const visit = (path: string, trail: string[]) => {
      if (state.get(path) === "done") return;
      if (state.get(path) === "open") {
        circles.push([...trail.slice(trail.indexOf(path)), path].join(" -> "));
        return;
      }
      state.set(path, "open");
      for (const { target } of byPath.get(path)?.imports ?? []) {
        if (byPath.has(target)) visit(target, [...trail, path]);
      }
      state.set(path, "done");
    };
    for (const path of byPath.keys()) visit(path, []);
    expect(circles).toEqual([]);
  });
});

test("core compiles without Node's and the browser's types", () => {
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  const run = () => execFileSync(process.execPath, [tsc, "-p", "core"], { cwd: ROOT, encoding: "utf8", stdio: "pipe" });
  expect(run).not.toThrow();
});

describe("files", () => {
  test("are at most 400 lines, or listed here with a reason", () => {
    const lines = new Map(SOURCES.map(({ path, text }) => [path, text.split("\n").length - 1]));
    const long = [...lines].filter(([path, count]) => count > 400 && !(path in LONG_FILES));
    expect(long).toEqual([]);
    expect(Object.keys(LONG_FILES).filter((path) => !lines.has(path))).toEqual([]);
  });

  test("hold no focused test, no test switched off without a condition", () => {
    // A title as the first argument: skipIf(condition) and Playwright's skip(condition, reason) are something else.
    const off = /\b(?:test|it|describe)\.(?:skip|todo|fails)\s*\(\s*["'`]|\b(?:xit|xtest|xdescribe)\s*\(/;
    const focused = /\b(?:test|it|describe)\.only\b|\b(?:fit|fdescribe)\s*\(/;
    const marks = (text: string) => off.test(text) || focused.test(text);
    const wrong = SOURCES.filter(({ path, text }) => isTest(path) && marks(text)).map(({ path }) => path);
    expect(wrong.filter((path) => path !== "test/layering/layering.test.ts")).toEqual([]);
  });

  test("of the core wait for nothing and write nothing to the console", () => {
    const marks = /\bconsole\.|\bsetTimeout\(|\bMath\.random\(|\bDate\.now\(|\bprocess\./;
    const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    const wrong = SOURCES.filter(({ path, text }) => areaOf(path) === "core" && marks.test(code(text)));
    expect(wrong.map(({ path }) => path)).toEqual([]);
  });
});
