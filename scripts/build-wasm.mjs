/**
 * Compiles backends/wasm/kernels (AssemblyScript) twice: kernels.wasm over shared memory, for workers, and
 * kernels-single.wasm over ordinary memory, for pages without cross-origin isolation. Both are build products.
 * Skips what is newer than its sources; --force rebuilds.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = "backends/wasm/kernels";
const sources = readdirSync(`${root}${folder}`).map((name) => `${root}${folder}/${name}`);
const newest = Math.max(...[...sources, fileURLToPath(import.meta.url)].map((path) => statSync(path).mtimeMs));
const force = process.argv.includes("--force");

const VARIANTS = [
  { output: "backends/wasm/kernels.wasm", flags: ["--sharedMemory", "--maximumMemory", "65536"] },
  { output: "backends/wasm/kernels-single.wasm", flags: [] },
];

for (const { output, flags } of VARIANTS) {
  if (!force && existsSync(root + output) && statSync(root + output).mtimeMs > newest) continue;
  const { error, stderr } = await asc.main([
    `${folder}/index.ts`,
    ...["--baseDir", root, "--outFile", output],
    ...["-O3", "--noAssert", "--runtime", "stub", "--importMemory"],
    ...["--enable", "simd", "--enable", "threads", "--enable", "bulk-memory"],
    ...flags,
  ]);
  if (error) {
    process.stderr.write(`${stderr}${error.message}\n`);
    process.exit(1);
  }
}
