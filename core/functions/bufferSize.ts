/**
 * Sizes of communication buffers: public, and exactly what is allocated per rank (design 2.8). Bytes; every region is
 * rounded up to 128 bytes, so that any region may start a bulk copy.
 */
export const REGION_ALIGNMENT = 128;

export interface BufferBytes {
  readonly numNvlBytes: number;
  readonly numRdmaBytes: number;
}

/** How many tokens of each source are in flight at a time, per direction. */
export interface BufferConfig {
  readonly numSms: number;
  readonly numChunkTokens: number;
}

/** DeepEP's get_dispatch_config: larger groups keep fewer tokens of each source in flight, so that the sum stays level. */
export function getDispatchConfig(numRanks: number, numSms = 20): BufferConfig {
  return { numSms, numChunkTokens: Math.max(32, Math.floor(4096 / numRanks)) };
}

/** DeepEP's get_combine_config. */
export function getCombineConfig(numRanks: number, numSms = 20): BufferConfig {
  return { numSms, numChunkTokens: Math.max(32, Math.floor(4096 / numRanks)) };
}

/**
 * numNvlBytes  = region(G * chunk * hiddenBytes) + region(G * 128)
 * numRdmaBytes = one node: 0; else 2 * region(nodes * chunk * hiddenBytes) + region(nodes * 128)
 * with G ranks per node: a staging row per (source, token in flight) and a 128-byte control line per partner; network
 * regions are doubled because a send and a receive are in flight at once.
 */
export function configBytes(
  config: BufferConfig,
  group: { numRanks: number; ranksPerNode: number },
  hiddenBytes: number,
): BufferBytes {
  const nodes = group.numRanks / group.ranksPerNode;
  const staging = (partners: number) => region(partners * config.numChunkTokens * hiddenBytes);
  return {
    numNvlBytes: staging(group.ranksPerNode) + region(group.ranksPerNode * 128),
    numRdmaBytes: nodes === 1 ? 0 : 2 * staging(nodes) + region(nodes * 128),
  };
}

/** Fused style: the maximum over the dispatch and the combine configuration of the group's size (get_buffer). */
export function fusedBufferBytes(group: { numRanks: number; ranksPerNode: number }, hiddenBytes: number): BufferBytes {
  const dispatch = configBytes(getDispatchConfig(group.numRanks), group, hiddenBytes);
  const combine = configBytes(getCombineConfig(group.numRanks), group, hiddenBytes);
  return {
    numNvlBytes: Math.max(dispatch.numNvlBytes, combine.numNvlBytes),
    numRdmaBytes: Math.max(dispatch.numRdmaBytes, combine.numRdmaBytes),
  };
}

export interface HybridEpSizes {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly hiddenDim: number;
  /** Most tokens of any rank. */
  readonly seqLen: number;
  readonly numLocalExperts: number;
  readonly fp8Dispatch: boolean;
}

/**
 * Hybrid-ep style, sized once for a sequence length:
 *   dispatch = region(R * seqLen * rowBytes), rowBytes = 2 * hidden, or hidden + 4 * ceil(hidden / 128) with fp8
 *   combine  = region(R * seqLen * 2 * hidden)     one summed row per (token, destination rank)
 *   probs    = region(R * seqLen * numLocalExperts * 4)
 *   numNvlBytes  = max(dispatch, combine) + probs + region(R * 128)
 *   numRdmaBytes = one node: 0; else 2 * region(nodes * seqLen * max row bytes)
 */
export function hybridEpBufferBytes(sizes: HybridEpSizes): BufferBytes {
  const { numRanks, ranksPerNode, hiddenDim, seqLen, numLocalExperts } = sizes;
  const combineRow = 2 * hiddenDim;
  const dispatchRow = sizes.fp8Dispatch ? hiddenDim + 4 * Math.ceil(hiddenDim / 128) : combineRow;
  const row = Math.max(dispatchRow, combineRow);
  const nodes = numRanks / ranksPerNode;
  return {
    numNvlBytes:
      region(numRanks * seqLen * row) + region(numRanks * seqLen * numLocalExperts * 4) + region(numRanks * 128),
    numRdmaBytes: nodes === 1 ? 0 : 2 * region(nodes * seqLen * row),
  };
}

function region(bytes: number): number {
  return Math.ceil(bytes / REGION_ALIGNMENT) * REGION_ALIGNMENT;
}
