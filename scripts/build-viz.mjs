#!/usr/bin/env node
/**
 * Builds the viewer twice into the folder given, default dist: viewer (hashed files, any static host) and
 * viewer-single/viewer.html (one file that opens from file://, where browsers refuse module files).
 */
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = fileURLToPath(new URL("../viz", import.meta.url));
const into = resolve(process.argv[2] ?? fileURLToPath(new URL("../dist", import.meta.url)));
for (const [mode, folder] of [
  ["production", "viewer"],
  ["single", "viewer-single"],
]) {
  const outDir = resolve(into, folder);
  await build({ root, mode, configFile: `${root}/vite.config.ts`, logLevel: "warn", build: { outDir } });
}
