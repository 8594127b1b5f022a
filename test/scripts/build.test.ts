/** scripts/build.mjs in a tree of its own, with a module per part and stand-ins for the slow steps. */
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
} from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** Of everything in the tree: older than what a build of it makes. */
const LONG_AGO = new Date("2020-01-01T00:00:00Z");

let tree: string;
const at = (path: string) => join(tree, path);
const text = (path: string) => readFileSync(at(path), "utf8");
const write = (path: string, content: string) => writeFile(at(path), content);

/** Stands in for scripts/build-viz.mjs: pages that say which core lay in dist/ while they were made. */
const VIEWER = `
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
const seen = existsSync("dist/core/index.js") ? readFileSync("dist/core/index.js", "utf8") : "none";
for (const page of ["viewer/index.html", "viewer-single/viewer.html"]) {
  mkdirSync(process.argv[2] + "/" + page.split("/")[0], { recursive: true });
  writeFileSync(process.argv[2] + "/" + page, seen);
}
`;

beforeEach(async () => {
  tree = mkdtempSync(join(tmpdir(), "fused-a2a-build-"));
  for (const folder of ["scripts", "core", "viz", "backends/webgpu", "cli", "bench"])
    mkdirSync(at(folder), { recursive: true });
  for (const file of ["tsconfig.json", "package.json", "package-lock.json", "scripts/build.mjs"])
    cpSync(join(ROOT, file), at(file));
  cpSync(join(ROOT, "scripts/tsconfig.build.json"), at("scripts/tsconfig.build.json"));
  symlinkSync(join(ROOT, "node_modules"), at("node_modules"));
  await write("core/index.ts", "export const version: number = 1;\n");
  await write("viz/main.ts", "export {};\n");
  await write("backends/webgpu/copy.wgsl", "// kernel\n");
  await write("scripts/build-wasm.mjs", "");
  await write("scripts/build-viz.mjs", VIEWER);
  for (const path of readdirSync(tree, { recursive: true, encoding: "utf8" }))
    if (!path.startsWith("node_modules")) utimesSync(at(path), LONG_AGO, LONG_AGO);
});
afterEach(() => rm(tree, { recursive: true, force: true }));

function build(...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [at("scripts/build.mjs"), ...args], {
    cwd: tree,
    encoding: "utf8",
  });
  return { status, output: stdout + stderr };
}

describe("npm run build", () => {
  test("makes JavaScript, types, the kernels' text and the viewer, and leaves nothing beside dist/", () => {
    const before = readdirSync(tree);
    expect(build()).toMatchObject({ status: 0 });
    for (const path of ["core/index.js", "core/index.d.ts", "backends/webgpu/copy.wgsl", "viewer/index.html"])
      expect(existsSync(at(`dist/${path}`)), path).toBe(true);
    expect(readdirSync(tree).sort()).toEqual([...before, "dist"].sort());
  });

  test("leaves the build before in its place until the new one is complete", async () => {
    build();
    await write("core/index.ts", "export const version: number = 2;\n");
    expect(build()).toMatchObject({ status: 0 });
    expect(text("dist/viewer/index.html")).toContain("version = 1");
    expect(text("dist/core/index.js")).toContain("version = 2");
  });

  test("drops what is no longer built", async () => {
    await write("core/old.ts", "export {};\n");
    build();
    await rm(at("core/old.ts"));
    build();
    expect(existsSync(at("dist/core/index.js"))).toBe(true);
    expect(existsSync(at("dist/core/old.js"))).toBe(false);
  });

  test("clears up after builds that were ended, and leaves alone those that run", () => {
    const ended = `dist.${spawnSync(process.execPath, ["-e", ""]).pid}`;
    const running = `dist.${process.pid}`;
    for (const folder of [ended, running]) mkdirSync(at(`${folder}/made`), { recursive: true });
    build("--quick");
    expect([ended, running].map((folder) => existsSync(at(folder)))).toEqual([false, true]);
  });

  test("that fails leaves dist/ as it was", async () => {
    build();
    const before = readdirSync(tree).sort();
    await write("core/index.ts", 'export const version: number = "2";\n');
    const failed = build();
    expect(failed).toMatchObject({ status: 1 });
    expect(failed.output).toContain("build: TypeScript failed");
    expect(text("dist/core/index.js")).toContain("version = 1");
    expect(existsSync(at("dist/viewer/index.html"))).toBe(true);
    expect(readdirSync(tree).sort()).toEqual(before);
  });
});

describe("npm run build -- --quick", () => {
  test("makes no viewer where there was none", () => {
    expect(build("--quick")).toMatchObject({ status: 0 });
    expect(existsSync(at("dist/core/index.js"))).toBe(true);
    expect(existsSync(at("dist/viewer"))).toBe(false);
  });

  test("keeps the viewer that was built from the same sources", async () => {
    build();
    await write("cli/main.ts", "export {};\n");
    build("--quick");
    for (const page of ["viewer/index.html", "viewer-single/viewer.html"]) expect(text(`dist/${page}`)).toBe("none");
    expect(existsSync(at("dist/cli/main.js"))).toBe(true);
    build("--quick");
    expect(existsSync(at("dist/viewer/index.html"))).toBe(true);
  });

  test.each([
    ["a view", () => write("viz/main.ts", "export const changed = true;\n")],
    ["the core", () => write("core/index.ts", "export const version: number = 2;\n")],
    ["a kernel", () => write("backends/webgpu/copy.wgsl", "// another\n")],
    ["the packages", () => write("package-lock.json", "{}\n")],
    ["a file that went away", () => rm(at("viz/gone.ts"))],
  ])("drops the viewer after a change of %s, and says so", async (_, change) => {
    await write("viz/gone.ts", "export {};\n");
    build();
    await change();
    expect(build("--quick").output).toContain("npm run build");
    expect(existsSync(at("dist/core/index.js"))).toBe(true);
    expect(existsSync(at("dist/viewer"))).toBe(false);
    expect(existsSync(at("dist/viewer-single"))).toBe(false);
  });
});
