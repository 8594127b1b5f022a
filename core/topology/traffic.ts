/**
 * How many rows each rank moves over each kind of link: what the cost model multiplies by row bytes. Counted exactly from
 * a routing (count.ts), or expected for uniform routing (closedForm.ts). A row is one (token, destination rank); a slot is
 * one (token, k). Every array has one entry per rank, or a single one that stands for all of them.
 *
 * Directions are dispatch's. Combine moves the same rows the other way: what went out comes in (`reversed`).
 */
export interface Traffic {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numTokens: Float64Array;
  /** Rows to all ranks, own rank included, and from all ranks. */
  readonly sendRows: Float64Array;
  readonly recvRows: Float64Array;
  /** Rows per (token, node), own node included: what crosses the network once per node, rail-aligned. */
  readonly nodeRows: Float64Array;
  /** Rail-aligned: rows over the NIC, each once per (token, other node). */
  readonly railNicOut: Float64Array;
  readonly railNicIn: Float64Array;
  /** Rail-aligned: rows over NVLink, forwarded from the rail stop to their ranks (one node: from the source). */
  readonly railNvlinkOut: Float64Array;
  readonly railNvlinkIn: Float64Array;
  /** Rail-aligned: rows read at the rail stop (once per (token, node)) and rows written from it, own rank included. */
  readonly railReads: Float64Array;
  readonly railWrites: Float64Array;
  /** Direct: rows straight to their ranks. */
  readonly directNicOut: Float64Array;
  readonly directNicIn: Float64Array;
  readonly directNvlinkOut: Float64Array;
  readonly directNvlinkIn: Float64Array;
  /** Slots (one message per (token, expert)), straight to their ranks. */
  readonly slotNicOut: Float64Array;
  readonly slotNicIn: Float64Array;
  readonly slotNvlinkOut: Float64Array;
  readonly slotNvlinkIn: Float64Array;
  readonly sendSlots: Float64Array;
  readonly recvSlots: Float64Array;
  /** Received rows with two and more local experts. */
  readonly multiRows: Float64Array;
}

export const TRAFFIC_ARRAYS = [
  "numTokens",
  "sendRows",
  "recvRows",
  "nodeRows",
  "railNicOut",
  "railNicIn",
  "railNvlinkOut",
  "railNvlinkIn",
  "railReads",
  "railWrites",
  "directNicOut",
  "directNicIn",
  "directNvlinkOut",
  "directNvlinkIn",
  "slotNicOut",
  "slotNicIn",
  "slotNvlinkOut",
  "slotNvlinkIn",
  "sendSlots",
  "recvSlots",
  "multiRows",
] as const;
export type TrafficArray = (typeof TRAFFIC_ARRAYS)[number];

export function emptyTraffic(numRanks: number, ranksPerNode: number, length = numRanks): Traffic {
  const arrays = Object.fromEntries(TRAFFIC_ARRAYS.map((name) => [name, new Float64Array(length)]));
  return { numRanks, ranksPerNode, ...(arrays as Record<TrafficArray, Float64Array>) };
}

/** Combine's view: egress and ingress change places; what is read once and summed stays where it is. */
export function reversed(traffic: Traffic): Traffic {
  return {
    ...traffic,
    sendRows: traffic.recvRows,
    recvRows: traffic.sendRows,
    railNicOut: traffic.railNicIn,
    railNicIn: traffic.railNicOut,
    railNvlinkOut: traffic.railNvlinkIn,
    railNvlinkIn: traffic.railNvlinkOut,
    directNicOut: traffic.directNicIn,
    directNicIn: traffic.directNicOut,
    directNvlinkOut: traffic.directNvlinkIn,
    directNvlinkIn: traffic.directNvlinkOut,
    slotNicOut: traffic.slotNicIn,
    slotNicIn: traffic.slotNicOut,
    slotNvlinkOut: traffic.slotNvlinkIn,
    slotNvlinkIn: traffic.slotNvlinkOut,
    sendSlots: traffic.recvSlots,
    recvSlots: traffic.sendSlots,
  };
}
