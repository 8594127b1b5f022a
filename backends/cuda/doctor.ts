/** What the CUDA backend finds on this machine, for `fused-a2a doctor`. */
import { native } from "./errors.ts";
import { type Attempt, findAddon } from "./loader.ts";
import type { NativeDevice, NativeDriver, NativeNccl } from "./native.ts";

export interface CudaReport {
  /** Where the addon was looked for and what came of it. */
  readonly attempts: readonly Attempt[];
  readonly driver: NativeDriver | null;
  readonly devices: readonly NativeDevice[];
  /** peers[i][j]: device i reaches the memory of device j. */
  readonly peers: readonly (readonly boolean[])[];
  /** NCCL, which groups over several processes need; null without an addon. */
  readonly nccl: NativeNccl | null;
  /** One line: what is there, or what is missing and how to get it. */
  readonly summary: string;
}

export async function describeCuda(variant: "cuda" | "emulated" = "cuda"): Promise<CudaReport> {
  const { addon, attempts } = findAddon(variant);
  if (addon === null) {
    const tried = attempts.map(({ path, outcome }) => `${path}: ${outcome}`).join(", ");
    return {
      attempts,
      driver: null,
      devices: [],
      peers: [],
      nccl: null,
      summary: `no native addon (${tried}); npm run build:native`,
    };
  }
  const driver = await native(() => addon.driver());
  const count = driver.state === 0 ? driver.numDevices : 0;
  const devices = await Promise.all(Array.from({ length: count }, (_, i) => native(() => addon.device(i))));
  const matrix = count === 0 ? new Uint8Array(0) : await native(() => addon.peerMatrix(count));
  const peers = devices.map((_, i) => devices.map((_, j) => matrix[i * count + j] === 1));
  const nccl = await native(() => addon.nccl());
  return { attempts, driver, devices, peers, nccl, summary: driver.message };
}

/** The report in lines: addon, driver, a line per device, and the devices that cannot reach each other. */
export function cudaLines(report: CudaReport): string[] {
  const lines = report.attempts.map(({ path, outcome }) => `addon ${path}: ${outcome}`);
  if (report.driver === null) return lines;
  const { driver } = report;
  lines.push(
    `driver: ${cudaVersion(driver.driverVersion)}; built with CUDA ${cudaVersion(driver.runtimeVersion)} for ${driver.architectures} (${driver.compiler})`,
  );
  for (const one of report.devices) {
    const memory = `${(one.totalBytes / 2 ** 30).toFixed(1)} GiB, ${(one.freeBytes / 2 ** 30).toFixed(1)} free`;
    const use = one.supported ? "" : "; this build has no code for it";
    lines.push(
      `device ${one.device}: ${one.name}, sm_${one.computeMajor}${one.computeMinor}, ${one.numSms} SMs, ${memory}, ${one.pciBusId}${use}`,
    );
  }
  const apart = report.peers.flatMap((row, i) => row.flatMap((reaches, j) => (reaches ? [] : [`${i} to ${j}`])));
  if (report.devices.length > 1) {
    lines.push(
      apart.length === 0 ? "peer access: all devices reach each other" : `no peer access: ${apart.join(", ")}`,
    );
  }
  if (report.nccl !== null) lines.push(...ncclLines(report.nccl));
  return lines;
}

function ncclLines({ found, version, path, tried }: NativeNccl): string[] {
  if (!found) return [`NCCL: not found (only groups over several processes need it)`, ...tried.trim().split("\n")];
  const [major, minor, patch] = [version / 10000, (version / 100) % 100, version % 100].map(Math.floor);
  return [`NCCL ${major}.${minor}.${patch}: ${path}`];
}

function cudaVersion(version: number): string {
  return version === 0 ? "none" : `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}
