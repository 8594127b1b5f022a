#!/usr/bin/env node
/**
 * Builds dist/: WebAssembly kernels, JavaScript and types, the kernels' text beside the modules that read it, the viewer.
 * `--quick` builds no viewer; the one of the build before stays if nothing that goes into it has changed since. Everything
 * is made in a folder beside dist/ and takes its place at the end: what runs meanwhile finds the build before, and so does
 * everybody after a failure.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const dist = join(root, "dist");
const work = join(root, `dist.${process.pid}`);
const made = join(work, "made");
/** What build-viz.mjs makes, in its order, and where all that goes into it lies: pages run the browser's backends too. */
const VIEWER = { folders: ["viewer", "viewer-single"], first: "viewer/index.html", last: "viewer-single/viewer.html" };
const VIEWER_SOURCES = ["viz", "core", "backends", "scripts/build-viz.mjs", "package-lock.json"];

process.on("exit", () => rmSync(work, { recursive: true, force: true }));
clearLeftovers();

step("WebAssembly kernels", "scripts/build-wasm.mjs");
step("TypeScript", "node_modules/typescript/bin/tsc", "-p", "scripts/tsconfig.build.json", "--outDir", made);
for (const file of assets(join(root, "backends"))) {
  const target = join(made, relative(root, file));
  mkdirSync(dirname(target), { recursive: true });
  cpSync(file, target);
}
if (process.argv.includes("--quick")) keepViewer();
else step("viewer", "scripts/build-viz.mjs", made);
if (existsSync(dist)) renameSync(dist, join(work, "before"));
renameSync(made, dist);

function step(what, script, ...args) {
  const started = performance.now();
  const { status } = spawnSync(process.execPath, [join(root, script), ...args], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) {
    console.error(`build: ${what} failed`);
    process.exit(1);
  }
  console.log(`built ${what} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

/** What builds that were ended (Ctrl-C) had made; others may be running. */
function clearLeftovers() {
  for (const name of readdirSync(root)) {
    const [, pid] = /^dist\.(\d+)$/.exec(name) ?? [];
    if (pid !== undefined && !isRunning(Number(pid))) rmSync(join(root, name), { recursive: true, force: true });
  }
}

function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Files that TypeScript does not copy. */
function assets(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(wgsl|wasm)$/.test(entry.name))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

/** A viewer of other sources would show what the code beside it does not mean. */
function keepViewer() {
  if (!existsSync(join(dist, VIEWER.last))) return;
  const { mtimeMs: built } = statSync(join(dist, VIEWER.first));
  if (VIEWER_SOURCES.flatMap(times).some((changed) => changed > built)) {
    console.log("left out the viewer: its sources have changed since it was built (npm run build builds it)");
    return;
  }
  for (const folder of VIEWER.folders)
    cpSync(join(dist, folder), join(made, folder), { recursive: true, preserveTimestamps: true });
  console.log("kept the viewer of the build before");
}

/** When a file, or anything in a folder, was changed; a folder changes when a file comes or goes. */
function times(path) {
  const stat = statSync(join(root, path));
  if (!stat.isDirectory()) return [stat.mtimeMs];
  return [stat.mtimeMs, ...readdirSync(join(root, path)).flatMap((name) => times(join(path, name)))];
}
