import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { runOnce } from "./lifetime.ts";

const RUNS = 200;
const root = fileURLToPath(new URL("../..", import.meta.url));
let folder = "";

/** Node runs no TypeScript: the backend is compiled once into a folder of its own. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "fused-a2a-lifetime-"));
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: join(root, "tsconfig.json"),
      compilerOptions: {
        noEmit: false,
        outDir: folder,
        rootDir: root,
        typeRoots: [join(root, "node_modules/@types"), join(root, "node_modules")],
      },
      include: [join(root, "backends/webgpu/index.ts"), join(root, "test/webgpu/lifetime.ts")],
    }),
  );
  const { status, stdout } = spawnSync(
    process.execPath,
    [join(root, "node_modules/typescript/bin/tsc"), "-p", folder],
    { encoding: "utf8" },
  );
  if (status !== 0) throw new Error(stdout);
  const kernels = "backends/webgpu/kernels";
  for (const name of readdirSync(join(root, kernels))) cpSync(join(root, kernels, name), join(folder, kernels, name));
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  writeFileSync(
    join(folder, "once.js"),
    `import { createWebGpuBackend } from "./backends/webgpu/index.js";
import { runOnce } from "./test/webgpu/lifetime.js";
const backend = await createWebGpuBackend();
await runOnce(backend, Number(process.argv[2]));
// Every other process leaves the device open: both must end by themselves.
if (Number(process.argv[2]) % 2 === 0) await backend.close();
console.log("done");
`,
  );
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it(`${RUNS} processes in a row end normally`, () => {
  const endings: string[] = [];
  for (let i = 0; i < RUNS; i++) {
    const { status, signal, stdout } = spawnSync(process.execPath, [join(folder, "once.js"), String(i)], {
      encoding: "utf8",
      timeout: 60_000,
    });
    if (status !== 0 || stdout !== "done\n") endings.push(`run ${i}: status ${status}, signal ${signal}, ${stdout}`);
  }
  expect(endings).toEqual([]);
});

it(`${RUNS} backends one after another in one process neither fail nor grow`, async () => {
  const residentMiB = () => Math.round(process.memoryUsage().rss / 2 ** 20);
  let early = 0;
  for (let i = 0; i < RUNS; i++) {
    const backend = await createWebGpuBackend();
    await runOnce(backend, i);
    await backend.close();
    if (i === 50) early = residentMiB();
  }
  const late = residentMiB();
  console.log(`resident: ${early} MiB after 50 backends, ${late} MiB after ${RUNS}`);
  expect(late).toBeLessThan(early + 150);
});

it(`${RUNS} runs on one backend neither fail nor grow`, async () => {
  const backend = await createWebGpuBackend();
  await runOnce(backend, 0);
  for (let i = 0; i < 10; i++) await runOnce(backend, i);
  const held = backend.heldBytes();
  for (let i = 0; i < RUNS; i++) await runOnce(backend, i);
  expect(backend.heldBytes()).toBe(held);
  await backend.close();
});
