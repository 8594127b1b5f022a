#!/usr/bin/env node
/**
 * The root package's install script: builds the native addons that this machine can build, so that `npm ci` leaves a
 * working clone. A missing compiler is one line and no failure (`npm run build:native` builds later); a compile error is a
 * failure. FUSED_A2A_NATIVE=off builds nothing, FUSED_A2A_NATIVE=required fails when something cannot be built.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const MODES = ["auto", "off", "required"];
const mode = process.env.FUSED_A2A_NATIVE ?? "auto";
const root = fileURLToPath(new URL("..", import.meta.url));

if (!MODES.includes(mode)) {
  console.error(`native: FUSED_A2A_NATIVE: expected ${MODES.join(", ")}, received ${mode}`);
  process.exit(1);
}
// A package without its sources (a published tarball) has nothing to build.
if (existsSync(`${root}backends/cuda/binding`)) {
  const { status } = spawnSync(process.execPath, ["scripts/build-native.mjs"], { cwd: root, stdio: "inherit" });
  process.exit(status ?? 1);
}
