#!/usr/bin/env node
/** Builds the viewer twice: dist/viewer (any static host) and dist/viewer-single/viewer.html (opens from file://). */
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = fileURLToPath(new URL("../viz", import.meta.url));
for (const mode of ["production", "single"]) {
  await build({ root, mode, configFile: `${root}/vite.config.ts`, logLevel: "warn" });
}
