/** Handles whose arrays stay on the devices: sizes are known, arrays come to the host when somebody asks for them. */
import { Handle, type HandleData, type HandleMeta, type RankHandle } from "../../core/handle/handle.ts";
import { metaNumbers, metaOfNumbers } from "../../core/handle/metaNumbers.ts";
import { native } from "./errors.ts";
import type { NativeGroup, NativeHandle, NativeHandleRank, NativeHandleSizes } from "./native.ts";
import type { TensorOwner } from "./tensor.ts";

/** What a request must agree with, known without waiting for a device. */
export interface RankSizes {
  readonly rank: number;
  readonly numTokens: number;
  readonly numRows: number;
}

/** `Handle.native` of this backend; keeps the device memory alive. */
export class CudaHandle {
  readonly owner: TensorOwner;
  readonly ref: NativeHandle;
  readonly sizes: readonly RankSizes[];

  constructor(owner: TensorOwner, ref: NativeHandle, sizes: readonly RankSizes[]) {
    this.owner = owner;
    this.ref = ref;
    this.sizes = sizes;
  }
}

/** A new dispatch's handle. */
export function makeHandle(
  owner: TensorOwner,
  ref: NativeHandle,
  localRanks: readonly number[],
  sizes: readonly RankSizes[],
): Handle {
  const meta = { ...metaOfNumbers(owner.addon.handleMeta(ref)), localRanks: [...localRanks] };
  const download = () => owner.turns.take(() => native(() => downloadHandle(owner, ref, meta)));
  const counts = () => owner.turns.take(() => native(() => downloadCounts(owner, ref, meta)));
  return new Handle(meta, download, new CudaHandle(owner, ref, sizes), counts);
}

/** A handle of sizes only, for core's checks: nothing waits for a device. */
export function sizesOnly(handle: Handle, sizes: readonly RankSizes[]): Handle {
  const none = new Int32Array(0);
  const overflow = { flag: false, numCut: 0, cut: none };
  const ranks: RankHandle[] = sizes.map((size) => ({
    ...size,
    numEntries: 0,
    sendRank: none,
    sendRow: none,
    sendExpert: null,
    sendSlot: null,
    rowSrcRank: none,
    rowSrcToken: none,
    tokensPerExpert: none,
    numTokensPerExpert: none,
    overflow,
  }));
  return Handle.of({ meta: handle.meta, ranks });
}

/** A handle made elsewhere and checked, brought to the devices of `group`. Throws InvalidArgument when its arrays contradict. */
export async function uploadHandle(owner: TensorOwner, group: NativeGroup, data: HandleData): Promise<CudaHandle> {
  const ranks = data.ranks.map(toNativeRank);
  const ref = await owner.addon.handleUpload(group, metaNumbers(data.meta), ranks);
  return new CudaHandle(owner, ref, data.ranks);
}

function toNativeRank(rank: RankHandle): NativeHandleRank {
  return {
    ...rank,
    tokensPerExpertLength: rank.tokensPerExpert.length,
    numLocalExperts: rank.numTokensPerExpert.length,
    numCut: rank.overflow.numCut,
    overflow: rank.overflow.flag,
    cut: rank.overflow.cut,
  };
}

/** Without a turn: the caller has one, or waits for it. */
export async function downloadHandle(owner: TensorOwner, ref: NativeHandle, meta: HandleMeta): Promise<HandleData> {
  const sizes = await owner.addon.handleSizes(ref, meta.localRanks.length);
  const ranks = sizes.map((size) => emptyRank(size, meta.kind === "hybrid-ep"));
  await owner.addon.handleDownload(ref, ranks);
  return { meta, ranks: ranks.map(({ rank }, i) => fromNativeRank(rank, ranks[i])) };
}

/** tokensPerExpert alone: a few numbers where the whole handle is megabytes. */
async function downloadCounts(owner: TensorOwner, ref: NativeHandle, meta: HandleMeta): Promise<Int32Array[]> {
  const sizes = await owner.addon.handleSizes(ref, meta.localRanks.length);
  const counts = sizes.map((size) => new Int32Array(size.tokensPerExpertLength));
  const ranks = sizes.map((size, i) => ({
    ...size,
    sendRank: null,
    sendRow: null,
    sendExpert: null,
    sendSlot: null,
    rowSrcRank: null,
    rowSrcToken: null,
    tokensPerExpert: counts[i],
    numTokensPerExpert: null,
    cut: null,
  }));
  await owner.addon.handleDownload(ref, ranks);
  return counts;
}

type FilledRank = { [K in keyof NativeHandleRank]: NativeHandleRank[K] } & {
  readonly [K in Exclude<keyof NativeHandleRank, keyof NativeHandleSizes | "sendExpert" | "sendSlot">]: Int32Array;
};

function emptyRank(size: NativeHandleSizes, hybrid: boolean): FilledRank {
  const entries = size.numTokens * size.numEntries;
  return {
    ...size,
    sendRank: new Int32Array(entries),
    sendRow: new Int32Array(entries),
    sendExpert: hybrid ? new Int32Array(entries) : null,
    sendSlot: hybrid ? new Int32Array(entries) : null,
    rowSrcRank: new Int32Array(size.numRows),
    rowSrcToken: new Int32Array(size.numRows),
    tokensPerExpert: new Int32Array(size.tokensPerExpertLength),
    numTokensPerExpert: new Int32Array(size.numLocalExperts),
    cut: new Int32Array(size.numCut * 4),
  };
}

function fromNativeRank(rank: number, filled: FilledRank): RankHandle {
  return {
    rank,
    numTokens: filled.numTokens,
    numEntries: filled.numEntries,
    numRows: filled.numRows,
    sendRank: filled.sendRank,
    sendRow: filled.sendRow,
    sendExpert: filled.sendExpert,
    sendSlot: filled.sendSlot,
    rowSrcRank: filled.rowSrcRank,
    rowSrcToken: filled.rowSrcToken,
    tokensPerExpert: filled.tokensPerExpert,
    numTokensPerExpert: filled.numTokensPerExpert,
    overflow: { flag: filled.overflow, numCut: filled.numCut, cut: filled.cut },
  };
}
