/** Folders of Linux programs that carry SwiftShader: Chromium-family browsers and Electron applications. */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";

const FIXED = [
  "/usr/lib/chromium",
  "/usr/lib64/chromium-browser",
  "/usr/lib64/chromium",
  "/snap/chromium/current/usr/lib/chromium-browser",
  "/opt/google/chrome",
  "/opt/google/chrome-beta",
  "/opt/google/chrome-unstable",
  "/opt/google/chrome-canary",
  "/opt/microsoft/msedge",
  "/opt/microsoft/msedge-beta",
  "/opt/microsoft/msedge-dev",
  "/opt/brave.com/brave",
  "/opt/vivaldi",
  "/usr/share/code",
];

const PROGRAMS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"];

/** Folders `parent/<name>/child` for every <name> that starts with `prefix`. */
function expand(parent: string, prefix: string, children: readonly string[]): string[] {
  let names: string[];
  try {
    names = readdirSync(parent).filter((name) => name.startsWith(prefix));
  } catch {
    return [];
  }
  return names.flatMap((name) => children.map((child) => join(parent, name, child)));
}

function onPath(): string[] {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return PROGRAMS.flatMap((program) =>
    folders.flatMap((folder) => {
      try {
        return [dirname(realpathSync(join(folder, program)))];
      } catch {
        return [];
      }
    }),
  );
}

export function hasSwiftShader(folder: string): boolean {
  return existsSync(join(folder, "libvk_swiftshader.so")) && existsSync(join(folder, "vk_swiftshader_icd.json"));
}

/** Every folder that is looked at, existing or not, in order, each once. */
export function candidateFolders(): string[] {
  const playwright = process.env.PLAYWRIGHT_BROWSERS_PATH ?? join(homedir(), ".cache/ms-playwright");
  const chromeLinux = ["chrome-linux", "chrome-linux64"];
  const puppeteer = join(homedir(), ".cache/puppeteer");
  return [
    ...new Set([
      ...FIXED,
      ...onPath(),
      ...expand(playwright, "chromium-", chromeLinux),
      ...expand(playwright, "chromium_headless_shell-", [...chromeLinux, "chrome-headless-shell-linux64"]),
      ...expand(join(puppeteer, "chrome"), "linux-", ["chrome-linux64"]),
      ...expand(join(puppeteer, "chrome-headless-shell"), "linux-", ["chrome-headless-shell-linux64"]),
      join(process.cwd(), "node_modules/electron/dist"),
      ...expand("/usr/lib", "electron", ["."]),
    ]),
  ];
}
