/** Finds and loads the addon, and says what was tried when it cannot. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Unavailable } from "../../core/errors.ts";
import type { NativeAddon } from "./native.ts";

/** FA2A_ABI_VERSION of the header these types were written for. */
export const ABI_VERSION = 4;

/** A path of your own; final when it is set. */
export const ADDON_VARIABLES = { cuda: "FUSED_A2A_CUDA_ADDON", emulated: "FUSED_A2A_EMULATED_ADDON" } as const;

export type Variant = keyof typeof ADDON_VARIABLES;

export interface Attempt {
  readonly path: string;
  /** Why it was not taken, or "loaded". */
  readonly outcome: string;
}

export interface Search {
  readonly addon: NativeAddon | null;
  readonly attempts: readonly Attempt[];
}

const loaded = new Map<Variant, Search>();

/** Looks for the addon: the variable's path, else build/ of the package, from the sources and from dist/. */
export function findAddon(variant: Variant): Search {
  const before = loaded.get(variant);
  if (before !== undefined) return before;
  const attempts: Attempt[] = [];
  let addon: NativeAddon | null = null;
  for (const path of candidates(variant)) {
    const found = tryLoad(path, variant);
    attempts.push({ path, outcome: typeof found === "string" ? found : "loaded" });
    if (typeof found === "string") continue;
    addon = found;
    break;
  }
  const search = { addon, attempts };
  // A failure is looked for again: the addon may be built meanwhile.
  if (addon !== null) loaded.set(variant, search);
  return search;
}

/** The addon. Throws Unavailable with every path tried and what to do. */
export function loadAddon(variant: Variant): NativeAddon {
  const { addon, attempts } = findAddon(variant);
  if (addon !== null) return addon;
  const backend = variant === "cuda" ? "cuda" : "cuda-emulated";
  const tried = attempts.map(({ path, outcome }) => `${path} (${outcome})`).join(", ");
  throw new Unavailable(
    `backend ${backend}: its native addon did not load; tried ${tried}; ${remedy(variant, attempts)}`,
  );
}

function candidates(variant: Variant): string[] {
  const own = process.env[ADDON_VARIABLES[variant]];
  if (own !== undefined && own !== "") return [own];
  return [join(packageFolder(), "build", `fused_a2a_${variant}.node`)];
}

/** The folder of package.json: two up from the sources, three from dist/. */
export function packageFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json")) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}

function tryLoad(path: string, variant: Variant): NativeAddon | string {
  if (!existsSync(path)) return "not there";
  let addon: NativeAddon;
  try {
    addon = createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    return `does not load: ${(error as Error).message.split("\n")[0]}`;
  }
  if (typeof addon.abiVersion !== "function") return "no addon of fused-a2a";
  if (addon.abiVersion() !== ABI_VERSION) return `built for interface ${addon.abiVersion()}, not ${ABI_VERSION}`;
  if (addon.isEmulated() !== (variant === "emulated")) return "the other variant";
  return addon;
}

function remedy(variant: Variant, attempts: readonly Attempt[]): string {
  const variable = ADDON_VARIABLES[variant];
  if (process.env[variable]) return `correct or unset ${variable}`;
  if (attempts.some(({ outcome }) => outcome !== "not there")) return "build it again: npm run build:native";
  if (variant === "emulated") {
    return findTool(["CXX"], ["g++"]) === null
      ? "install g++ (Debian: apt-get install g++), then npm run build:native"
      : "build it: npm run build:native";
  }
  return findTool(["CUDACXX"], ["nvcc"], CUDA_FOLDERS) === null
    ? "install the CUDA toolkit 12 or newer (nvcc was not found), then npm run build:native; without a GPU use cuda-emulated or wasm"
    : "build it: npm run build:native";
}

const CUDA_FOLDERS = ["CUDA_HOME", "CUDA_PATH"];

/** The first of: a variable that names it, a toolkit folder's bin, PATH, /usr/local/cuda. */
function findTool(
  variables: readonly string[],
  names: readonly string[],
  homes: readonly string[] = [],
): string | null {
  for (const variable of variables) {
    const value = process.env[variable];
    if (value !== undefined && existsSync(value)) return value;
  }
  const folders = [
    ...homes.flatMap((home) => (process.env[home] ? [join(process.env[home] as string, "bin")] : [])),
    ...(process.env.PATH ?? "").split(delimiter),
    ...(homes.length > 0 ? ["/usr/local/cuda/bin"] : []),
  ];
  for (const folder of folders) {
    for (const name of names) if (folder !== "" && existsSync(join(folder, name))) return join(folder, name);
  }
  return null;
}
