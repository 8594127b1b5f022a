import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { createCudaBackend, describeCuda, placeByHand } from "../../backends/cuda/index.ts";
import { findAddon, loadAddon, packageFolder } from "../../backends/cuda/loader.ts";
import { InvalidArgument, Unavailable } from "../../core/errors.ts";
import { built, why } from "./open.ts";

const emulatedPath = join(packageFolder(), "build/fused_a2a_emulated.node");

/** A module of its own, so that nothing is loaded yet. */
async function fresh(environment: Record<string, string>): Promise<typeof import("../../backends/cuda/loader.ts")> {
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  vi.resetModules();
  return import("../../backends/cuda/loader.ts");
}

function failure(load: () => unknown): Error {
  try {
    load();
  } catch (error) {
    return error as Error;
  }
  throw new Error("expected an error, received none");
}

describe("finding the addon", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.resetModules();
  });

  test("a variable's path is final, and named when nothing is there", async () => {
    const loader = await fresh({ FUSED_A2A_CUDA_ADDON: "/nowhere/fused_a2a.node" });
    const error = failure(() => loader.loadAddon("cuda"));
    expect(error.name).toBe("Unavailable");
    expect(error.message).toBe(
      "backend cuda: its native addon did not load; tried /nowhere/fused_a2a.node (not there); correct or unset FUSED_A2A_CUDA_ADDON",
    );
  });

  test("a file that is no addon says why it does not load", async () => {
    const path = join(mkdtempSync(join(tmpdir(), "fused-a2a-loader-")), "broken.node");
    writeFileSync(path, "no shared library");
    const loader = await fresh({ FUSED_A2A_EMULATED_ADDON: path });
    const error = failure(() => loader.loadAddon("emulated"));
    expect(error.message).toContain(
      `backend cuda-emulated: its native addon did not load; tried ${path} (does not load: `,
    );
    expect(error.message.split("\n")).toHaveLength(1);
  });

  test.skipIf(!built)(`the other variant is refused${why}`, async () => {
    const loader = await fresh({ FUSED_A2A_CUDA_ADDON: emulatedPath });
    expect(failure(() => loader.loadAddon("cuda")).message).toContain("(the other variant)");
  });

  const cudaPath = join(packageFolder(), "build/fused_a2a_cuda.node");
  test.skipIf(existsSync(cudaPath))("without nvcc the remedy names the toolkit", async () => {
    const loader = await fresh({ FUSED_A2A_CUDA_ADDON: "", PATH: "", CUDACXX: "", CUDA_HOME: "", CUDA_PATH: "" });
    expect(loader.findAddon("cuda").attempts).toEqual([{ path: cudaPath, outcome: "not there" }]);
    expect(failure(() => loader.loadAddon("cuda")).message).toContain("npm run build:native");
  });
});

describe("the cuda backend here", () => {
  test("runs, or says in one line what is missing and how to get it", async () => {
    const { driver } = await describeCuda();
    if (driver?.state === 0) return (await createCudaBackend({ emulated: false })).close();
    const error = await createCudaBackend({ emulated: false }).then(
      () => new Error("no error"),
      (failed: Error) => failed,
    );
    expect(error).toBeInstanceOf(Unavailable);
    expect(error.message).toMatch(/^backend cuda: .*(build:native|driver|GPU)/);
    expect(error.message).not.toContain("\n");
  });

  test("impossible options are refused by name", async () => {
    const place = placeByHand(2, 0, "127.0.0.1:1");
    const options = [
      [{ devices: 0 }, "devices: expected at least 1, received 0"],
      [{ devices: [0, -1] }, "devices: expected numbers of devices, received -1"],
      [{ numSms: 0.5 }, "numSms: expected at least 1, received 0.5"],
      [{ deadlineMs: -2 }, "deadlineMs: expected milliseconds, or -1 for none, received -2"],
      [{ cluster: { place, deadlineMs: -1 } }, "cluster.deadlineMs: expected milliseconds, at least 1, received -1"],
      [
        { deadlineMs: 500, cluster: { place } },
        "deadlineMs: expected cluster.deadlineMs over several processes, received 500",
      ],
      [{ cluster: { place, timeoutMs: 0.5 } }, "cluster.timeoutMs: expected milliseconds, at least 1, received 0.5"],
    ] as const;
    for (const [option, message] of options) {
      const failed = createCudaBackend({ emulated: true, ...option });
      await expect(failed).rejects.toThrow(InvalidArgument);
      await expect(failed).rejects.toThrow(message);
    }
  });
});

describe.skipIf(!built)(`doctor's report${why}`, () => {
  test("names the addon, the driver, the devices and who reaches whom", async () => {
    const report = await describeCuda("emulated");
    expect(report.attempts).toEqual([{ path: findAddon("emulated").attempts[0].path, outcome: "loaded" }]);
    expect(report.driver).toMatchObject({ state: 0, architectures: "emulated" });
    expect(report.devices.length).toBe(report.driver?.numDevices);
    expect(report.peers.flat().every((reaches) => reaches)).toBe(true);
  });

  test("devices that do not exist are refused when a group is made", async () => {
    const backend = await createCudaBackend({ emulated: true, devices: [0, 99] });
    await expect(backend.createGroup({ numRanks: 2 })).rejects.toThrow(/device/);
    await expect(backend.createGroup({ numRanks: 3 })).rejects.toThrow(/devices: expected one per local rank \(3\)/);
    await backend.close();
    expect(loadAddon("emulated").isEmulated()).toBe(true);
  });

  test("ranks in other processes need the cluster option", async () => {
    const backend = await createCudaBackend({ emulated: true });
    await expect(backend.createGroup({ numRanks: 4, localRanks: [0, 1] })).rejects.toThrow(
      /localRanks: expected all 4 ranks on backend cuda-emulated, received 0,1/,
    );
    await backend.close();
  });
});
