/** This process's part of a group over several processes: they meet, and each makes its own ranks. */
import type { GroupOptions } from "../../core/backend.ts";
import { InvalidArgument, type Wait } from "../../core/errors.ts";
import { checkGroupOptions } from "../../core/functions/validate.ts";
import type { Operations } from "../../core/operations.ts";
import { FailureBundles } from "./bundle.ts";
import { type ClusterPlace, meet, ranksOfProcess, ranksPerNodeOf } from "./cluster/index.ts";
import { native } from "./errors.ts";
import { CudaGroup } from "./group.ts";
import { ClusterLink } from "./link.ts";
import { ABI_VERSION } from "./loader.ts";
import type { NativeAddon, NativeEmulation, NativeGroup } from "./native.ts";
import { type ClusterOptions, type CudaOptions, nativeGroupOptions } from "./options.ts";

const DEFAULT_TIMEOUT_MS = 60_000;

export async function joinGroup(
  addon: NativeAddon,
  options: GroupOptions,
  settings: NativeEmulation | null,
  cuda: CudaOptions & { readonly cluster: ClusterOptions },
  groups: Set<Operations>,
): Promise<CudaGroup> {
  const { cluster, emulated } = cuda;
  const { place, secret, bind, timeoutMs = DEFAULT_TIMEOUT_MS, deadlineMs = DEFAULT_TIMEOUT_MS } = cluster;
  const name = emulated ? "cuda-emulated" : "cuda";
  const checked = checkPart(options, place);
  const { numRanks, ranksPerNode, localRanks } = checked;
  const devices = localRanks.length > 1 ? cuda.devices : [await deviceOfLoneRank(addon, place, settings, cuda.devices)];
  const meeting = await meet({
    place,
    secret,
    bind,
    timeoutMs,
    contract: {
      backend: name,
      interface: ABI_VERSION,
      processesPerNode: place.processesPerNode ?? 1,
      numRanks,
      ranksPerNode,
    },
    payload: async () => {
      const id = await native(() => addon.networkId(numRanks, ranksPerNode, localRanks.length));
      return Buffer.from(id).toString("base64");
    },
  });
  const given = {
    ...nativeGroupOptions(checked, { ...cuda, devices, deadlineMs }),
    networkId: new Uint8Array(Buffer.from(meeting.payload, "base64")),
  };
  let made: NativeGroup | null = null;
  const link = new ClusterLink(place, meeting, deadlineMs, {
    numRanks,
    abort: (why) => {
      const group = made;
      if (group === null) return;
      // What waits for the others ends; the memory goes back. Both may find the group closed already.
      void native(() => addon.groupAbort(group, why))
        .then(() => native(() => addon.groupRelease(group)))
        .catch(() => {});
    },
    waits: async () => (made === null ? [] : nativeWaits(addon, made)),
  });
  try {
    made = await link.run(() => native(() => addon.groupCreate(given, settings)));
    link.throwFailure();
    const created = made;
    await link.run(() => native(() => addon.groupConnect(created)));
  } catch (error) {
    link.close();
    if (made !== null) await native(() => addon.groupClose(made as NativeGroup)).catch(() => {});
    throw error;
  }
  const bundles = cluster.bundleDir === undefined ? null : FailureBundles.of(cluster, meeting.payload);
  return new CudaGroup(name, addon, made, given, groups, link, bundles);
}

/** Throws InvalidArgument unless the local ranks are this process's block, which the others count on. */
function checkPart(options: GroupOptions, place: ClusterPlace): Required<GroupOptions> {
  const own = ranksOfProcess(place, options.numRanks);
  const localRanks = options.localRanks ?? own;
  if (localRanks.join() !== own.join()) {
    throw new InvalidArgument({
      name: "localRanks",
      expected: `${own.join(", ")} in process ${place.processRank} of ${place.numProcesses}`,
      received: localRanks.join(", "),
      remedy: "leave them out: they follow from the place of the process",
    });
  }
  const ranksPerNode = options.ranksPerNode ?? ranksPerNodeOf(place, options.numRanks);
  return checkGroupOptions({ ...options, ranksPerNode, localRanks });
}

/**
 * Processes of one rank share the devices of their host: by their number on it, in blocks when `devices` are fewer. Throws
 * InvalidArgument for a list that does not say which device is this process's.
 */
async function deviceOfLoneRank(
  addon: NativeAddon,
  { processesPerNode = 1, localProcess = 0 }: ClusterPlace,
  emulation: NativeEmulation | null,
  devices: CudaOptions["devices"],
): Promise<number> {
  if (typeof devices === "object") {
    if (devices.length === 1) return devices[0];
    if (devices.length === processesPerNode) return devices[localProcess];
    const host = processesPerNode === 1 ? "" : ` or ${processesPerNode} (one for each process of the host)`;
    throw new InvalidArgument({
      name: "devices",
      expected: `1 (this process's)${host}`,
      received: devices.length === 0 ? "0" : `${devices.length} (${devices.join(", ")})`,
      remedy: "a process drives one rank here: name its device, or leave the option out",
    });
  }
  if (devices !== undefined) return Math.floor((localProcess * Math.min(devices, processesPerNode)) / processesPerNode);
  const present = emulation?.numDevices ?? (await native(() => addon.driver())).numDevices;
  return localProcess % Math.max(1, present);
}

async function nativeWaits(addon: NativeAddon, group: NativeGroup): Promise<Wait[]> {
  const waits = await addon.groupWaits(group);
  const bytes = (count: number) => `${count.toLocaleString("en-US")} bytes`;
  return waits.map(({ rank, srcRank, phase, expectedBytes, receivedBytes }) => ({
    rank,
    srcRank,
    phase,
    expected: bytes(expectedBytes),
    received: receivedBytes === 0 ? "nothing" : bytes(receivedBytes),
  }));
}
