import { defineConfig } from "vitest/config";

// Tests drive the parts of up to 8 hosts from one process, and each may wait for the others in a native call: Node's own
// pool has 4 threads. Test processes inherit it.
process.env.UV_THREADPOOL_SIZE ??= "16";

// `vitest run` runs the fast tests; `vitest run --mode sweep` the long ones (seeds, fuzzing, full sizes).
export default defineConfig(({ mode }) => ({
  test: {
    include: mode === "sweep" ? ["test/**/*.sweep.test.ts"] : ["test/**/*.test.ts"],
    exclude: ["**/node_modules/**", ...(mode === "sweep" ? [] : ["test/**/*.sweep.test.ts"])],
    pool: "forks",
    testTimeout: mode === "sweep" ? 600_000 : 60_000,
    hookTimeout: 60_000,
  },
}));
