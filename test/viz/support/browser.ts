import { existsSync } from "node:fs";
import type { LaunchOptions } from "playwright";

/** Quiet, and with the WebGPU adapter that runs without a GPU. */
const ARGS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const PATHS = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/** CHROMIUM, else an installed Chromium, else the one that the package @sparticuz/chromium carries. */
export async function launchOptions(): Promise<LaunchOptions> {
  const found = process.env.CHROMIUM ?? PATHS.find((path) => existsSync(path));
  if (found) return { executablePath: found, args: ARGS };
  const { default: bundled } = await import("@sparticuz/chromium");
  return { executablePath: await bundled.executablePath(), args: ARGS };
}
