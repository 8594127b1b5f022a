/** What callers may ask of the backend, and the library's options of a group. */
import type { GroupOptions } from "../../core/backend.ts";
import type { BundleRows } from "../../core/bundle/format.ts";
import { InvalidArgument } from "../../core/errors.ts";
import type { Tensor } from "../../core/tensor.ts";
import type { ClusterPlace } from "./cluster/index.ts";
import type { NativeEmulation, NativeGroupOptions } from "./native.ts";

export interface CudaOptions {
  /** The same C++ and kernels on the CPU: devices are imaginary, times mean nothing. */
  readonly emulated: boolean;
  /**
   * How many devices the ranks are spread over, in blocks, or the device of each local rank; default all there are. Several
   * processes of one rank on a host: how many they share, or a list of this process's device or of every process's.
   */
  readonly devices?: number | readonly number[];
  /** Who moves the rows of a combine: the expert's rank (push, the default) or the source (pull; not over several processes). */
  readonly combinePath?: "push" | "pull";
  /** Times every phase of operations that are waited for; default true. */
  readonly recordTimings?: boolean;
  /** Longest wait of a call, in milliseconds; default 60 000, -1 = none. Refused beside `cluster`, which has its own. */
  readonly deadlineMs?: number;
  readonly numSms?: number;
  readonly numSmsDispatch?: number;
  readonly numSmsCombine?: number;
  readonly numSmsPreprocessing?: number;
  readonly numBlocksPermute?: number;
  readonly numBlocksUnpermute?: number;
  /** This process is one of several that make up each group: it drives the ranks of a node, or one of them. */
  readonly cluster?: ClusterOptions;
  /** How the emulation schedules, for tests; the process's, taken by groups created afterwards. */
  readonly emulation?: NativeEmulation;
}

export interface ClusterOptions {
  /** Which process this is: placeFromEnvironment or placeByHand. */
  readonly place: ClusterPlace;
  /** Refuse processes that do not know it. */
  readonly secret?: string;
  /** Address that process 0 listens on; default the rendezvous host. */
  readonly bind?: string;
  /** Longest wait for all processes to come, in milliseconds; default 60 000. */
  readonly timeoutMs?: number;
  /** Longest wait for another process in an operation, in milliseconds; default 60 000. */
  readonly deadlineMs?: number;
  /**
   * Folder for fused-a2a-failure-process{p}.safetensors, written by every living process when a dispatch or combine fails
   * with Timeout, BackendFailure or ContractMismatch, for `fused-a2a verify` (docs/formats.md); default none.
   */
  readonly bundleDir?: string;
  /** What this process knows beyond its own ranks, asked for when a bundle is written. */
  readonly bundleNotes?: () => BundleNotes;
}

/** What the caller knows beyond its own ranks; asked for when an operation has failed. */
export interface BundleNotes {
  /** Of all ranks of the group, for the operation that runs: then one bundle replays the whole group. */
  readonly routing?: { readonly topkIdx: readonly Tensor[]; readonly topkWeights: readonly Tensor[] | null };
  /** How `fused-a2a` made the rows. */
  readonly rows?: BundleRows;
  /** Where the routing came from, for people. */
  readonly source?: string;
}

const CAPS = [
  "numSms",
  "numSmsDispatch",
  "numSmsCombine",
  "numSmsPreprocessing",
  "numBlocksPermute",
  "numBlocksUnpermute",
] as const;

export function checkCudaOptions(options: CudaOptions): void {
  const { devices } = options;
  for (const name of CAPS) {
    const value = options[name];
    if (value !== undefined && (!Number.isSafeInteger(value) || value < 1)) throw impossible(name, "at least 1", value);
  }
  if (options.cluster !== undefined && options.combinePath === "pull") {
    throw new InvalidArgument({
      name: "combinePath",
      expected: "push over several processes",
      received: "pull",
      remedy: "leave it out: rows of other processes cannot be pulled",
    });
  }
  const count = typeof devices === "number" ? devices : 1;
  if (!Number.isSafeInteger(count) || count < 1) throw impossible("devices", "at least 1", count);
  for (const device of typeof devices === "object" ? devices : []) {
    if (!Number.isSafeInteger(device) || device < 0) throw impossible("devices", "numbers of devices", device);
  }
  const { deadlineMs, cluster } = options;
  if (deadlineMs !== undefined && (!Number.isSafeInteger(deadlineMs) || deadlineMs < -1)) {
    throw impossible("deadlineMs", "milliseconds, or -1 for none", deadlineMs);
  }
  if (cluster !== undefined && deadlineMs !== undefined) {
    throw new InvalidArgument({
      name: "deadlineMs",
      expected: "cluster.deadlineMs over several processes",
      received: `${deadlineMs}`,
      remedy: "pass it as cluster.deadlineMs: one deadline holds for the group and for the wait for others",
    });
  }
  // There is always an end to waiting for another process: it may never come.
  for (const name of ["timeoutMs", "deadlineMs"] as const) {
    const value = cluster?.[name];
    if (value !== undefined && (!Number.isSafeInteger(value) || value < 1)) {
      throw impossible(`cluster.${name}`, "milliseconds, at least 1", value);
    }
  }
}

/** The library's options of a group: ranks spread in blocks over the devices. */
export function nativeGroupOptions(group: Required<GroupOptions>, options: CudaOptions): NativeGroupOptions {
  const { numRanks, ranksPerNode, localRanks } = group;
  const caps = Object.fromEntries(CAPS.map((name) => [name, options[name] ?? 0]));
  return {
    ...caps,
    numRanks,
    ranksPerNode,
    localRanks,
    devices: devicesOf(localRanks.length, options.devices),
    combinePath: options.combinePath === "pull" ? 1 : 0,
    recordTimings: options.recordTimings === false ? 0 : 1,
    deadlineMs: options.deadlineMs ?? 0,
  };
}

function devicesOf(numLocal: number, devices: CudaOptions["devices"]): readonly number[] | null {
  if (devices === undefined) return null;
  if (typeof devices === "object") return devices;
  const used = Math.min(devices, numLocal);
  return Array.from({ length: numLocal }, (_, i) => Math.floor((i * used) / numLocal));
}

function impossible(name: string, expected: string, received: number): InvalidArgument {
  return new InvalidArgument({ name, expected, received: `${received}`, remedy: "correct the option" });
}
