import { afterAll, describe, expect, it } from "vitest";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { compareLayers, routingFile } from "./gpt-oss.ts";

const path = routingFile("gpt-oss-20b.decode.small.safetensors");
const reason = path === null ? " (skipped: the routing file is not beside the repository)" : "";

describe.skipIf(path === null)(`real gpt-oss routing at 8 ranks${reason}`, async () => {
  const backend = path === null ? null : await createWebGpuBackend();
  afterAll(() => backend?.close());
  it("every layer equals the oracle bit for bit", async () => {
    if (path === null || backend === null) return;
    expect(await compareLayers(path, backend, createOracleBackend())).toBe(5);
  });
});
