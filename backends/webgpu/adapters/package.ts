/** SwiftShader out of the npm package @sparticuz/chromium: a 1.6 MB archive inside it, unpacked once per version. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { hasSwiftShader } from "./folders.ts";

export const SWIFTSHADER_PACKAGE = "@sparticuz/chromium";

/** The package's archive and version, or null where it is not installed. */
function findArchive(): { archive: string; version: string } | null {
  let folder: string;
  try {
    folder = dirname(createRequire(import.meta.url).resolve(SWIFTSHADER_PACKAGE));
  } catch {
    return null;
  }
  for (let parent = folder; parent !== dirname(parent); parent = dirname(parent)) {
    const archive = join(parent, "bin/swiftshader.tar.br");
    if (!existsSync(archive)) continue;
    const { version } = JSON.parse(readFileSync(join(parent, "package.json"), "utf8")) as { version: string };
    return { archive, version };
  }
  return null;
}

/** Folder with SwiftShader, its loader and its JSON; null where the package is not installed. */
export function unpackSwiftShader(): string | null {
  const found = findArchive();
  if (found === null) return null;
  const owner = process.getuid?.() ?? 0;
  const folder = join(tmpdir(), `fused-a2a-swiftshader-${found.version}-${owner}`);
  if (hasSwiftShader(folder)) return folder;
  // Processes may race: each unpacks aside and renames; whoever comes second finds the folder there.
  const aside = mkdtempSync(`${folder}-`);
  for (const [name, bytes] of untar(brotliDecompressSync(readFileSync(found.archive)))) {
    mkdirSync(aside, { recursive: true });
    writeFileSync(join(aside, basename(name)), bytes, { mode: 0o755 });
  }
  try {
    renameSync(aside, folder);
  } catch (error) {
    rmSync(aside, { recursive: true, force: true });
    if (!hasSwiftShader(folder)) throw error;
  }
  return folder;
}

/** The regular files of a tar archive: 512-byte headers, name at 0, octal size at 124, type at 156. */
export function* untar(archive: Uint8Array): Generator<[name: string, bytes: Uint8Array]> {
  const text = (from: number, length: number) => {
    const field = archive.subarray(from, from + length);
    const end = field.indexOf(0);
    return Buffer.from(end < 0 ? field : field.subarray(0, end)).toString("latin1");
  };
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12).trim(), 8);
    const type = text(at + 156, 1);
    if (type === "" || type === "0") yield [text(at, 100), archive.subarray(at + 512, at + 512 + size)];
    at += 512 + Math.ceil(size / 512) * 512;
  }
}
