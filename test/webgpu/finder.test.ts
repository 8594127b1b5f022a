import { existsSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { candidateFolders, hasSwiftShader } from "../../backends/webgpu/adapters/folders.ts";
import { SWIFTSHADER_PACKAGE, unpackSwiftShader, untar } from "../../backends/webgpu/adapters/package.ts";
import { ADAPTER_VARIABLE, createWebGpuBackend, describeAdapters } from "../../backends/webgpu/index.ts";
import { Unavailable } from "../../core/errors.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { compareBackends } from "./compare.ts";

const linux = process.platform === "linux";
// Whoever runs the tests with drivers of their own has taken the choice away.
const ownDrivers = Boolean(process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES);
const browsers = linux ? candidateFolders().filter(hasSwiftShader) : [];

afterEach(() => vi.unstubAllEnvs());

describe("finding an adapter", () => {
  it("tells what was tried, in order, and what was chosen", async () => {
    const { attempts, chosen } = await describeAdapters("auto");
    expect(attempts[0].source).toBe("system");
    const order = ["system", "chromium", "npm"];
    const ranks = attempts.map(({ source }) => order.indexOf(source));
    expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
    expect(attempts.filter(({ outcome }) => outcome === "chosen").length).toBe(chosen === null ? 0 : 1);
    for (const { reason } of attempts) expect(reason).not.toBe("");
    const at = attempts.findIndex(({ outcome }) => outcome === "chosen");
    if (at >= 0) for (const later of attempts.slice(at + 1)) expect(later.outcome).toBe("not tried");
  });

  it("leaves the environment as it was", async () => {
    const before = { ...process.env };
    await describeAdapters("auto");
    expect({ ...process.env }).toEqual(before);
  });

  it.skipIf(browsers.length === 0 || ownDrivers)("computes on SwiftShader of an installed browser", async () => {
    const backend = await createWebGpuBackend({ adapter: "chromium" });
    expect(backend.report.chosen?.source).toBe("chromium");
    await compareBackends(1, backend, createOracleBackend(), "fused");
    await backend.close();
  });

  const packaged = linux && process.arch === "x64" && unpackSwiftShader() !== null;
  it.skipIf(!packaged || ownDrivers)(`computes on SwiftShader of ${SWIFTSHADER_PACKAGE}`, async () => {
    const backend = await createWebGpuBackend({ adapter: "npm" });
    expect(backend.report.chosen?.source).toBe("npm");
    await compareBackends(2, backend, createOracleBackend(), "hybrid-ep");
    await backend.close();
  });

  it.skipIf(!linux)("respects VK_DRIVER_FILES, and says how to undo it when that gives no adapter", async () => {
    vi.stubEnv("VK_DRIVER_FILES", "/nonexistent.json");
    vi.stubEnv("VK_ICD_FILENAMES", "/nonexistent.json");
    const error = await createWebGpuBackend().catch((reason) => reason);
    expect(error).toBeInstanceOf(Unavailable);
    expect(error.message).toContain("unset VK_DRIVER_FILES");
    expect(error.message.split("\n").length).toBe(1);
    const { attempts, chosen, remedy } = await describeAdapters();
    expect(chosen).toBeNull();
    expect(remedy).toContain("unset");
    expect(attempts.filter(({ source }) => source !== "system").every(({ outcome }) => outcome === "absent")).toBe(
      true,
    );
  });

  it("refuses an unknown source by name", async () => {
    vi.stubEnv(ADAPTER_VARIABLE, "vulcan");
    await expect(createWebGpuBackend()).rejects.toThrow(/FUSED_A2A_WEBGPU_ADAPTER: expected auto, system/);
  });
});

describe("the package's archive", () => {
  it("reads the regular files of a tar", () => {
    const header = (name: string, size: number, type: string) => {
      const block = Buffer.alloc(512);
      block.write(name, 0, "latin1");
      block.write(`${size.toString(8).padStart(11, "0")}\0`, 124, "latin1");
      block.write(type, 156, "latin1");
      return block;
    };
    const body = Buffer.alloc(512);
    body.write("hello");
    const archive = Buffer.concat([header("d/", 0, "5"), header("d/a.txt", 5, "0"), body, Buffer.alloc(1024)]);
    const files = [...untar(archive)].map(([name, bytes]) => [name, Buffer.from(bytes).toString()]);
    expect(files).toEqual([["d/a.txt", "hello"]]);
  });

  it("is unpacked once", () => {
    const first = unpackSwiftShader();
    if (first === null) return expect(existsSync("node_modules/@sparticuz/chromium")).toBe(false);
    expect(unpackSwiftShader()).toBe(first);
    expect(hasSwiftShader(first)).toBe(true);
  });
});
