import { defineConfig } from "vitest/config";

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
