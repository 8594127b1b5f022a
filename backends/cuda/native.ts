/** The native surface as types: binding/addon.cc's exports. Promises reject with Errors that carry `native` (errors.ts). */
import type { HostArray } from "../../core/dtype/dtype.ts";
import type { MetaNumbers } from "../../core/handle/metaNumbers.ts";

declare const brand: unique symbol;
/** Type-tagged externals: another object in their place, or a freed one, is an error by name. */
export type NativeGroup = { readonly [brand]: "group" };
export type NativeTensorRef = { readonly [brand]: "tensor" };
export type NativeHandle = { readonly [brand]: "handle" };
export type NativeEvent = { readonly [brand]: "event" };
export type NativeGraph = { readonly [brand]: "graph" };

/** What the addon rejects and throws with, fa2a_error; places are -1 and texts empty when they do not apply. */
export interface NativeFailure {
  readonly code: number;
  readonly rank: number;
  readonly token: number;
  readonly slot: number;
  readonly row: number;
  readonly groupUsable: boolean;
  readonly name: string;
  readonly expected: string;
  readonly received: string;
  readonly remedy: string;
}

export interface NativeDriver {
  /** fa2a_driver_state: 0 = usable. */
  readonly state: number;
  /** 1000 * major + 10 * minor; 0 = none. */
  readonly driverVersion: number;
  readonly runtimeVersion: number;
  readonly numDevices: number;
  readonly architectures: string;
  readonly compiler: string;
  readonly message: string;
}

export interface NativeDevice {
  readonly device: number;
  readonly name: string;
  readonly pciBusId: string;
  readonly computeMajor: number;
  readonly computeMinor: number;
  readonly numSms: number;
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly l2Bytes: number;
  readonly sharedBytesPerBlock: number;
  readonly supported: boolean;
}

export interface NativeBufferShape {
  readonly numTokens: number;
  readonly rowBytes: number;
  readonly topk: number;
  readonly numExperts: number;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numRows: number;
  readonly combinePath: number;
  readonly weights: number;
}

export interface NativeBufferBytes {
  readonly counts: number;
  readonly staging: number;
  readonly stagingWeights: number;
  readonly total: number;
}

/** Absent and 0 mean the default of fa2a_group_options. */
export interface NativeGroupOptions {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly devices: readonly number[] | null;
  readonly numSms?: number;
  readonly numSmsDispatch?: number;
  readonly numSmsCombine?: number;
  readonly numSmsPreprocessing?: number;
  readonly numBlocksPermute?: number;
  readonly numBlocksUnpermute?: number;
  readonly combinePath: number;
  readonly recordTimings: number;
  readonly deadlineMs?: number;
  /** Groups over several processes: what networkId() gave one of them. */
  readonly networkId?: Uint8Array | null;
}

/** fa2a_emulation; absent and 0 mean its defaults. */
export interface NativeEmulation {
  readonly numDevices?: number;
  readonly numSms?: number;
  readonly computeMajor?: number;
  readonly seed?: number;
  readonly weakStores?: number;
  readonly slowDevice?: number;
  readonly stalledDevice?: number;
  readonly deviceBytes?: number;
  readonly poison?: number;
}

export interface NativeMemory {
  readonly reserved: number;
  readonly pool: number;
  readonly poolFree: number;
  readonly reallocations: number;
}

export interface NativeNccl {
  readonly found: boolean;
  /** 10000 * major + 100 * minor + patch. */
  readonly version: number;
  readonly path: string;
  /** A line per place that was looked at. */
  readonly tried: string;
}

/** What one local rank has sent over the network since its group was made. */
export interface NativeNetwork {
  readonly rowsDispatched: number;
  readonly rowsCombined: number;
  readonly rowBytes: number;
  readonly metadataBytes: number;
  readonly countBytes: number;
  /** Rows to other ranks of the node, own tokens' and relayed ones, and back; and their bytes. */
  readonly linkRowsDispatched: number;
  readonly linkRowsCombined: number;
  readonly linkBytes: number;
}

/** Rows that a local rank waits for, or waited for when the group failed. */
export interface NativeWait {
  readonly rank: number;
  readonly srcRank: number;
  readonly phase: string;
  readonly expectedBytes: number;
  readonly receivedBytes: number;
}

export interface NativeTensor {
  readonly tensor: NativeTensorRef;
  /** Index into core/dtype's DTYPES. */
  readonly dtype: number;
  readonly rank: number;
  readonly device: number;
  readonly rows: number;
  readonly columns: number;
  readonly bytes: number;
  readonly pointer: bigint;
}

export type NativeArray =
  | { readonly tensor: NativeTensorRef }
  | { readonly data: HostArray; readonly dtype: number; readonly rows: number; readonly columns: number };
/** One per local rank. */
export type NativeArrays = readonly NativeArray[];

export interface NativeCopy {
  readonly tensor: NativeTensorRef;
  readonly offset: number;
  readonly bytes: number;
  readonly data: HostArray;
}

export interface NativePhase {
  readonly rank: number;
  readonly waiting: boolean;
  readonly startUs: number;
  readonly durationUs: number;
  readonly name: string;
  /** Whose rows it waits for; -1 = nobody's alone. */
  readonly srcRank: number;
}

export type NativeHandleMeta = MetaNumbers;

export interface NativeHandleSizes {
  readonly rank: number;
  readonly numTokens: number;
  readonly numEntries: number;
  readonly numRows: number;
  readonly tokensPerExpertLength: number;
  readonly numLocalExperts: number;
  readonly numCut: number;
  readonly overflow: boolean;
}

/** Sizes and arrays of one rank, as core's RankHandle; null: not wanted (download), not there (upload). */
export interface NativeHandleRank extends NativeHandleSizes {
  readonly sendRank: Int32Array | null;
  readonly sendRow: Int32Array | null;
  readonly sendExpert: Int32Array | null;
  readonly sendSlot: Int32Array | null;
  readonly rowSrcRank: Int32Array | null;
  readonly rowSrcToken: Int32Array | null;
  readonly tokensPerExpert: Int32Array | null;
  readonly numTokensPerExpert: Int32Array | null;
  readonly cut: Int32Array | null;
}

export interface NativeLayoutRequest {
  readonly topkIdx: NativeArrays;
  readonly numExperts: number;
  readonly numRanks: number;
  readonly numNodes: number;
  readonly perRank: readonly Int32Array[];
  /** Null with one node. */
  readonly perNode: readonly Int32Array[] | null;
  readonly perExpert: readonly Int32Array[];
  readonly tokenInRank: readonly Uint8Array[];
}

export interface NativeStream {
  readonly previousEvent: NativeEvent | null;
  readonly asyncFinish: boolean;
  readonly allocateOnCommStream: boolean;
  /** 0 = the group's caps. */
  readonly numSms: number;
}

export interface NativeDispatchRequest extends NativeStream {
  readonly kind: number;
  readonly x: NativeArrays;
  readonly scales: NativeArrays | null;
  readonly topkIdx: NativeArrays | null;
  readonly topkWeights: NativeArrays | null;
  readonly handle: NativeHandle | null;
  readonly numExperts: number;
  readonly expertAlignment: number;
  readonly numWorstTokens: number;
  readonly padMultiple: number;
  readonly numPermutedTokens: number;
  /** An earlier result whose tensors and handle are written again. */
  readonly into: NativeDispatchInto | null;
}

export interface NativeDispatchInto {
  readonly x: readonly NativeTensorRef[];
  readonly scales: readonly NativeTensorRef[] | null;
  readonly topkIdx: readonly NativeTensorRef[] | null;
  readonly topkWeights: readonly NativeTensorRef[] | null;
  readonly probs: readonly NativeTensorRef[] | null;
  readonly handle: NativeHandle;
}

export interface NativeDispatchResult {
  readonly x: readonly NativeTensor[];
  readonly scales: readonly NativeTensor[] | null;
  readonly topkIdx: readonly NativeTensor[] | null;
  readonly topkWeights: readonly NativeTensor[] | null;
  readonly probs: readonly NativeTensor[] | null;
  readonly handle: NativeHandle;
  readonly event: NativeEvent;
}

export interface NativeCombineRequest extends NativeStream {
  readonly handle: NativeHandle;
  readonly x: NativeArrays;
  readonly topkWeights: NativeArrays | null;
  readonly probs: NativeArrays | null;
  readonly bias0: NativeArrays | null;
  readonly bias1: NativeArrays | null;
  readonly into: NativeCombineInto | null;
}

export interface NativeCombineInto {
  readonly x: readonly NativeTensorRef[];
  readonly topkWeights: readonly NativeTensorRef[] | null;
  readonly probs: readonly NativeTensorRef[] | null;
}

export interface NativeCombineResult {
  readonly x: readonly NativeTensor[];
  readonly topkWeights: readonly NativeTensor[] | null;
  readonly probs: readonly NativeTensor[] | null;
  readonly event: NativeEvent;
}

export interface NativeAddon {
  abiVersion(): number;
  isEmulated(): boolean;
  driver(): Promise<NativeDriver>;
  device(device: number): Promise<NativeDevice>;
  /** [n, n], 1 where the row's device reaches the column's memory. */
  peerMatrix(numDevices: number): Promise<Uint8Array>;
  bufferSize(shape: NativeBufferShape): NativeBufferBytes;
  groupCreate(options: NativeGroupOptions, emulation: NativeEmulation | null): Promise<NativeGroup>;
  groupClose(group: NativeGroup): Promise<void>;
  groupConfigure(group: NativeGroup, options: NativeGroupOptions): Promise<void>;
  groupSetNumSms(group: NativeGroup, numSms: number): Promise<void>;
  groupSynchronize(group: NativeGroup): Promise<void>;
  /** cudaStream_t of a local rank: 0 = comm, 1 = compute. */
  groupStream(group: NativeGroup, local: number, which: 0 | 1): Promise<bigint>;
  groupReserve(group: NativeGroup, bytes: number): Promise<void>;
  groupRelease(group: NativeGroup): Promise<void>;
  groupMemory(group: NativeGroup, local: number): Promise<NativeMemory>;
  nccl(): Promise<NativeNccl>;
  /** Serves one group, whose processes hold `numLocalRanks` ranks each. */
  networkId(numRanks: number, ranksPerNode: number, numLocalRanks: number): Promise<Uint8Array>;
  groupNetwork(group: NativeGroup, local: number): Promise<NativeNetwork>;
  /** A word between any two ranks whose rows will cross processes, by every process at once: the first one connects. */
  groupConnect(group: NativeGroup): Promise<void>;
  /** What is outstanding; after a failure what was then. Answers while an operation waits, too. */
  groupWaits(group: NativeGroup): Promise<NativeWait[]>;
  /** Ends every wait for other processes; `why` is what later calls say. The group must then be closed. */
  groupAbort(group: NativeGroup, why: string): Promise<void>;
  tensorCreate(group: NativeGroup, local: number, dtype: number, rows: number, columns: number): Promise<NativeTensor>;
  tensorInfo(tensor: NativeTensorRef): NativeTensor;
  tensorsWrite(copies: readonly NativeCopy[]): Promise<void>;
  tensorsRead(copies: readonly NativeCopy[]): Promise<void>;
  tensorFill(tensor: NativeTensorRef, byte: number): Promise<void>;
  tensorFree(tensor: NativeTensorRef): void;
  eventQuery(event: NativeEvent): Promise<boolean>;
  eventWait(event: NativeEvent): Promise<void>;
  eventStreamWait(event: NativeEvent): Promise<void>;
  eventRecord(group: NativeGroup): Promise<NativeEvent>;
  eventPhases(event: NativeEvent): Promise<NativePhase[]>;
  eventFree(event: NativeEvent): void;
  handleMeta(handle: NativeHandle): NativeHandleMeta;
  handleSizes(handle: NativeHandle, numLocal: number): Promise<NativeHandleSizes[]>;
  handleDownload(handle: NativeHandle, ranks: readonly NativeHandleRank[]): Promise<void>;
  handleUpload(group: NativeGroup, meta: NativeHandleMeta, ranks: readonly NativeHandleRank[]): Promise<NativeHandle>;
  handleFree(handle: NativeHandle): void;
  layout(group: NativeGroup, request: NativeLayoutRequest): Promise<void>;
  fromMultihot(
    group: NativeGroup,
    routingMap: NativeArrays,
    probs: NativeArrays | null,
    topk: number,
  ): Promise<{ topkIdx: NativeTensor[]; topkWeights: NativeTensor[] | null }>;
  dispatch(group: NativeGroup, request: NativeDispatchRequest): Promise<NativeDispatchResult>;
  combine(group: NativeGroup, request: NativeCombineRequest): Promise<NativeCombineResult>;
  castToFp8(group: NativeGroup, x: NativeArrays): Promise<{ x: NativeTensor[]; scales: NativeTensor[] }>;
  castBack(group: NativeGroup, x: NativeArrays, scales: NativeArrays): Promise<NativeTensor[]>;
  scaleRows(group: NativeGroup, x: NativeArrays, factors: NativeArrays): Promise<NativeTensor[]>;
  graphBegin(group: NativeGroup): Promise<void>;
  graphEnd(group: NativeGroup): Promise<NativeGraph>;
  graphLaunch(graph: NativeGraph): Promise<NativeEvent>;
  graphFree(graph: NativeGraph): void;
}
