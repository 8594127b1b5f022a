/** The communication buffers and their caches: Megatron's get_buffer, init_hybrid_ep_buffer and friends (design 2.8). */
import type { BufferMemory, Group } from "../backend.ts";
import { elementBytes } from "../dtype/dtype.ts";
import { InvalidArgument } from "../errors.ts";
import type { Handle } from "../handle/handle.ts";
import type { AnyTensor } from "../tensor.ts";
import { type BufferBytes, fusedBufferBytes, type HybridEpSizes, hybridEpBufferBytes } from "./bufferSize.ts";

/** Communication memory of one group: `bytes` per local rank, freed when replaced or reset. */
export interface CommBuffer extends BufferBytes {
  readonly group: Group;
  readonly memory: BufferMemory;
}

let buffer: CommBuffer | null = null;
let numSms = 20;

/** Two calls that start together must not both allocate: the second finds what the first one made. */
let turn: Promise<unknown> = Promise.resolve();
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const result = turn.then(work);
  turn = result.catch(() => {});
  return result;
}

/** Bytes of one row at no less than 2 bytes an element, so that a combine fits wherever an fp8 dispatch did. */
export function getHiddenBytes(x: Pick<AnyTensor, "dtype" | "shape">): number {
  return x.shape[x.shape.length - 1] * Math.max(elementBytes(x.dtype), 2);
}

/** The cached buffer, or a new one when there is none, the group differs, or either size is too small. */
export function getBuffer(group: Group, hiddenBytes: number): Promise<CommBuffer> {
  expectWhole("hiddenBytes", hiddenBytes, 1);
  return inTurn(() => bufferFor(group, hiddenBytes));
}

async function bufferFor(group: Group, hiddenBytes: number): Promise<CommBuffer> {
  const needed = fusedBufferBytes(group, hiddenBytes);
  const fits =
    buffer !== null &&
    buffer.group === group &&
    buffer.numNvlBytes >= needed.numNvlBytes &&
    buffer.numRdmaBytes >= needed.numRdmaBytes;
  if (fits && buffer !== null) return buffer;
  buffer?.memory.free();
  buffer = null;
  group.setNumSms(numSms);
  buffer = { group, ...needed, memory: await group.allocateBuffer(needed.numNvlBytes + needed.numRdmaBytes) };
  return buffer;
}

/** The cached buffer of the fused style, or null (Megatron's `_buffer`). */
export function cachedBuffer(): CommBuffer | null {
  return buffer;
}

/** Frees the fused style's buffer; the next operation makes a new one. */
export function resetBuffer(): void {
  buffer?.memory.free();
  buffer = null;
}

/** SMs of the fused operations (set_deepep_num_sms). Throws InvalidArgument below 1; odd numbers are fine here. */
export function setNumSms(value: number): void {
  expectWhole("numSms", value, 1);
  numSms = value;
  buffer?.group.setNumSms(value);
}

export function getNumSms(): number {
  return numSms;
}

export interface HybridEpOptions {
  readonly numSmsDispatchApi?: number | null;
  readonly numSmsCombineApi?: number | null;
  readonly numSmsPreprocessingApi?: number | null;
  readonly numBlocksPermute?: number | null;
  readonly numBlocksUnpermute?: number | null;
}

export interface HybridEpBuffer extends CommBuffer {
  readonly sizes: HybridEpSizes;
  readonly options: HybridEpOptions;
  /** How often a run needed more than was allocated ahead: each costs a reallocation. */
  readonly numReallocations: number;
}

let hybridEpBuffer: HybridEpBuffer | null = null;

/** Allocates the hybrid-ep buffer for `seqLen` tokens per rank ahead of the first run. */
export function initHybridEpBuffer(
  group: Group,
  hiddenDim: number,
  seqLen: number,
  numLocalExperts: number,
  numSmsDispatchApi: number | null = null,
  numSmsCombineApi: number | null = null,
  fp8Dispatch = false,
  more: Omit<HybridEpOptions, "numSmsDispatchApi" | "numSmsCombineApi"> = {},
): Promise<HybridEpBuffer> {
  const { numRanks, ranksPerNode } = group;
  const sizes = { numRanks, ranksPerNode, hiddenDim, seqLen, numLocalExperts, fp8Dispatch };
  return inTurn(() => allocateHybridEp(group, sizes, { numSmsDispatchApi, numSmsCombineApi, ...more }, 0));
}

/** What one run needs of the buffer. */
export type HybridEpNeed = Omit<HybridEpSizes, "numRanks" | "ranksPerNode">;

/** The hybrid-ep buffer for this run: made on first use, kept while it fits, regrown (and counted) when it does not. */
export function hybridEpBufferFor(group: Group, need: HybridEpNeed, options: HybridEpOptions): Promise<HybridEpBuffer> {
  return inTurn(() => fittingHybridEp(group, need, options));
}

async function fittingHybridEp(group: Group, need: HybridEpNeed, options: HybridEpOptions): Promise<HybridEpBuffer> {
  const { numRanks, ranksPerNode } = group;
  const sizes = { numRanks, ranksPerNode, ...need };
  if (hybridEpBuffer === null || hybridEpBuffer.group !== group) return allocateHybridEp(group, sizes, options, 0);
  const have = hybridEpBuffer;
  const needed = hybridEpBufferBytes(sizes);
  if (needed.numNvlBytes <= have.numNvlBytes && needed.numRdmaBytes <= have.numRdmaBytes) return have;
  const grown = {
    ...sizes,
    hiddenDim: Math.max(need.hiddenDim, have.sizes.hiddenDim),
    seqLen: Math.max(need.seqLen, have.sizes.seqLen),
    numLocalExperts: Math.max(need.numLocalExperts, have.sizes.numLocalExperts),
    // Below 4 columns fp8 rows with their scale are the wider ones.
    fp8Dispatch: need.fp8Dispatch || have.sizes.fp8Dispatch,
  };
  return allocateHybridEp(group, grown, options, have.numReallocations + 1);
}

interface HybridEpRun {
  readonly group: Group;
  readonly need: HybridEpNeed;
  readonly options: HybridEpOptions;
}
const runs = new WeakMap<Handle, HybridEpRun>();

/** Notes which run made a handle, so that its combine finds the same group and buffer whatever ran in between. */
export function rememberHybridEpRun(handle: Handle, run: HybridEpRun): void {
  runs.set(handle, run);
}

/** The buffer for the run that made `handle`; for a handle from elsewhere, the buffer at hand. */
export async function hybridEpBufferOf(handle: Handle): Promise<HybridEpBuffer> {
  const run = runs.get(handle);
  if (run !== undefined) return hybridEpBufferFor(run.group, run.need, run.options);
  if (hybridEpBuffer !== null) return hybridEpBuffer;
  throw new InvalidArgument({
    name: "handle",
    expected: "one of a dispatch of this process, or a hybrid-ep buffer",
    received: "neither",
    remedy: "call initHybridEpBuffer or HybridEPDispatch.forward first",
  });
}

/** The cached hybrid-ep buffer, or null (Megatron's `_hybrid_ep_buffer`). */
export function cachedHybridEpBuffer(): HybridEpBuffer | null {
  return hybridEpBuffer;
}

/** Frees the hybrid-ep buffer (Megatron's reset_hybrid_ep_buffer). */
export function resetHybridEpBuffer(): void {
  hybridEpBuffer?.memory.free();
  hybridEpBuffer = null;
}

async function allocateHybridEp(
  group: Group,
  sizes: HybridEpSizes,
  options: HybridEpOptions,
  numReallocations: number,
): Promise<HybridEpBuffer> {
  expectWhole("hiddenDim", sizes.hiddenDim, 1);
  expectWhole("seqLen", sizes.seqLen, 0);
  expectWhole("numLocalExperts", sizes.numLocalExperts, 1);
  resetHybridEpBuffer();
  const bytes = hybridEpBufferBytes(sizes);
  const memory = await group.allocateBuffer(bytes.numNvlBytes + bytes.numRdmaBytes);
  hybridEpBuffer = { group, ...bytes, memory, sizes, options, numReallocations };
  return hybridEpBuffer;
}

function expectWhole(name: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new InvalidArgument({
    name,
    expected: `a whole number of at least ${least}`,
    received: `${value}`,
    remedy: "correct the argument",
  });
}
