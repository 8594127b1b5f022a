#!/usr/bin/env node
/**
 * Builds dist/: WebAssembly kernels, JavaScript and types, the kernels' text beside the modules that read it, the viewer.
 * `--quick` leaves out the viewer.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const quick = process.argv.includes("--quick");

step("WebAssembly kernels", "scripts/build-wasm.mjs");
rmSync(join(root, "dist"), { recursive: true, force: true });
step("TypeScript", "node_modules/typescript/bin/tsc", "-p", "scripts/tsconfig.build.json");
for (const file of assets(join(root, "backends"))) {
  const target = join(root, "dist", file.slice(root.length));
  mkdirSync(dirname(target), { recursive: true });
  cpSync(file, target);
}
if (!quick && existsSync(join(root, "scripts/build-viz.mjs"))) step("viewer", "scripts/build-viz.mjs");

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

/** Files that TypeScript does not copy. */
function assets(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(wgsl|wasm)$/.test(entry.name))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}
