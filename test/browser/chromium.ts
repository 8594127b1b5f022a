/** A Chromium for tests: CHROMIUM, the system's, or the one of an npm package; nothing is downloaded. */
import { existsSync } from "node:fs";

/** Path of a Chromium executable, or null. */
export function findChromium(): string | null {
  const candidates = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  return candidates.find((path): path is string => path !== undefined && path !== "" && existsSync(path)) ?? null;
}

/** Headless Chromium with WebGPU on SwiftShader. */
export const WEBGPU_FLAGS = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
