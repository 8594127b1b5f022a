import { afterEach, describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import {
  configBytes,
  fusedBufferBytes,
  getDispatchConfig,
  hybridEpBufferBytes,
} from "../../../core/functions/bufferSize.ts";
import {
  cachedBuffer,
  cachedHybridEpBuffer,
  getBuffer,
  getHiddenBytes,
  getNumSms,
  hybridEpBufferFor,
  initHybridEpBuffer,
  resetBuffer,
  resetHybridEpBuffer,
  setNumSms,
} from "../../../core/functions/buffers.ts";
import { tensor } from "../../../core/tensor.ts";
import { recordingGroup } from "./recording.ts";

afterEach(() => {
  resetBuffer();
  resetHybridEpBuffer();
  setNumSms(20);
});

describe("getHiddenBytes = hidden * max(bytes per element, 2)", () => {
  test.each([
    ["bf16", 7168, 14336],
    ["fp16", 1, 2],
    ["fp32", 128, 512],
    ["fp8e4m3", 7168, 14336],
    ["u8", 5, 10],
  ] as const)("%s x %i = %i", (dtype, hidden, want) => {
    expect(getHiddenBytes(tensor(dtype, [3, hidden]))).toBe(want);
  });
});

describe("sizes, by hand", () => {
  test("one node: G * chunk rows and a control line per rank", () => {
    // 8 ranks: 512 tokens in flight; 8 * 512 * 256 + 8 * 128.
    expect(fusedBufferBytes({ numRanks: 8, ranksPerNode: 8 }, 256)).toEqual({
      numNvlBytes: 8 * 512 * 256 + 1024,
      numRdmaBytes: 0,
    });
  });

  test("two nodes: doubled network regions", () => {
    expect(fusedBufferBytes({ numRanks: 8, ranksPerNode: 4 }, 256)).toEqual({
      numNvlBytes: 4 * 512 * 256 + 512,
      numRdmaBytes: 2 * (2 * 512 * 256) + 256,
    });
  });

  test("regions are whole multiples of 128 bytes; large groups keep at least 32 tokens", () => {
    expect(getDispatchConfig(2048).numChunkTokens).toBe(32);
    expect(configBytes({ numSms: 1, numChunkTokens: 1 }, { numRanks: 3, ranksPerNode: 3 }, 10).numNvlBytes).toBe(
      128 + 384,
    );
  });

  test("hybrid-ep: rows, probs and control lines", () => {
    const sizes = { numRanks: 4, ranksPerNode: 2, hiddenDim: 64, seqLen: 10, numLocalExperts: 2, fp8Dispatch: false };
    expect(hybridEpBufferBytes(sizes)).toEqual({
      numNvlBytes: 4 * 10 * 128 + 384 + 512, // probs: 4 * 10 * 2 * 4 = 320, rounded to 384
      numRdmaBytes: 2 * (2 * 10 * 128),
    });
  });

  test("what is allocated is exactly what the formula says, per rank", async () => {
    const { group, allocated } = await recordingGroup(4, 2);
    const buffer = await getBuffer(group, 1024);
    const want = fusedBufferBytes(group, 1024);
    expect(allocated).toEqual([want.numNvlBytes + want.numRdmaBytes]);
    expect(buffer.memory.bytes).toBe(want.numNvlBytes + want.numRdmaBytes);
    await initHybridEpBuffer(group, 64, 10, 2, 24, 24, true);
    const sizes = { numRanks: 4, ranksPerNode: 2, hiddenDim: 64, seqLen: 10, numLocalExperts: 2, fp8Dispatch: true };
    const hybrid = hybridEpBufferBytes(sizes);
    expect(allocated[1]).toBe(hybrid.numNvlBytes + hybrid.numRdmaBytes);
  });
});

describe("getBuffer", () => {
  test("is reused while it fits, replaced when it is too small or the group differs", async () => {
    const [a, b] = [await recordingGroup(2), await recordingGroup(2)];
    const first = await getBuffer(a.group, 512);
    expect(cachedBuffer()).toBe(first);
    expect(await getBuffer(a.group, 512)).toBe(first);
    expect(await getBuffer(a.group, 100)).toBe(first);
    const grown = await getBuffer(a.group, 1024);
    expect(grown).not.toBe(first);
    expect(await getBuffer(a.group, 512)).toBe(grown);
    expect([a.allocated.length, a.held()]).toEqual([2, 1]);
    await getBuffer(b.group, 512);
    expect([a.held(), b.held()]).toEqual([0, 1]);
    resetBuffer();
    expect([cachedBuffer(), b.held()]).toEqual([null, 0]);
    resetBuffer();
  });

  test("calls that start together allocate once", async () => {
    const { group, allocated, held } = await recordingGroup(2);
    const buffers = await Promise.all([getBuffer(group, 512), getBuffer(group, 512), getBuffer(group, 256)]);
    expect(new Set(buffers).size).toBe(1);
    expect([allocated.length, held()]).toEqual([1, 1]);
  });

  test("a failed allocation leaves no buffer and the next call tries again", async () => {
    const { group, allocated } = await recordingGroup(2);
    const { allocateBuffer } = group;
    group.allocateBuffer = () => Promise.reject(new Error("no memory"));
    await expect(getBuffer(group, 512)).rejects.toThrow("no memory");
    expect(cachedBuffer()).toBeNull();
    group.allocateBuffer = allocateBuffer;
    await getBuffer(group, 512);
    expect(allocated).toHaveLength(1);
  });

  test.each([Number.NaN, 0, -1, 1.5, Number.POSITIVE_INFINITY])("hiddenBytes %d is refused", async (bytes) => {
    const { group } = await recordingGroup(1);
    expect(() => getBuffer(group, bytes)).toThrow(InvalidArgument);
  });
});

describe("setNumSms", () => {
  test("reaches the buffer at hand, and every later one", async () => {
    const [a, b] = [await recordingGroup(2), await recordingGroup(2)];
    await getBuffer(a.group, 512);
    setNumSms(7);
    expect(a.numSms).toEqual([20, 7]);
    await getBuffer(b.group, 512);
    expect(b.numSms).toEqual([7]);
    expect(getNumSms()).toBe(7);
  });

  test.each([0, -2, 1.5, Number.NaN])("%d is refused and changes nothing", (value) => {
    expect(() => setNumSms(value)).toThrow(InvalidArgument);
    expect(getNumSms()).toBe(20);
  });
});

describe("the hybrid-ep buffer", () => {
  const need = { hiddenDim: 64, seqLen: 16, numLocalExperts: 2, fp8Dispatch: false };

  test("made ahead, a run that fits keeps it; one that does not reallocates, keeps the old maxima and says so", async () => {
    const { group, allocated, held } = await recordingGroup(2);
    const ahead = await initHybridEpBuffer(group, 64, 16, 2, 12, 13, false, { numBlocksPermute: 5 });
    expect(ahead.options).toMatchObject({ numSmsDispatchApi: 12, numSmsCombineApi: 13, numBlocksPermute: 5 });
    expect(await hybridEpBufferFor(group, { ...need, seqLen: 3 }, {})).toBe(ahead);
    const grown = await hybridEpBufferFor(group, { ...need, seqLen: 40, numLocalExperts: 1 }, {});
    expect(grown.sizes).toMatchObject({ hiddenDim: 64, seqLen: 40, numLocalExperts: 2 });
    expect([ahead.numReallocations, grown.numReallocations]).toEqual([0, 1]);
    expect([allocated.length, held()]).toEqual([2, 1]);
    resetHybridEpBuffer();
    expect([cachedHybridEpBuffer(), held()]).toEqual([null, 0]);
  });

  test("initialising again replaces it; another group gets its own", async () => {
    const [a, b] = [await recordingGroup(2), await recordingGroup(2)];
    await initHybridEpBuffer(a.group, 64, 16, 2);
    await initHybridEpBuffer(a.group, 32, 16, 2);
    expect(a.held()).toBe(1);
    const other = await hybridEpBufferFor(b.group, need, {});
    expect([a.held(), b.held(), other.numReallocations]).toEqual([0, 1, 0]);
  });

  test("narrow fp8 rows are wider than bf16 rows: a bf16 buffer grows for them, once", async () => {
    const { group, allocated } = await recordingGroup(2);
    const narrow = { hiddenDim: 1, seqLen: 1000, numLocalExperts: 2, fp8Dispatch: false };
    await hybridEpBufferFor(group, narrow, {});
    const grown = await hybridEpBufferFor(group, { ...narrow, fp8Dispatch: true }, {});
    const needed = hybridEpBufferBytes({ numRanks: 2, ranksPerNode: 2, ...narrow, fp8Dispatch: true });
    expect(grown.numNvlBytes).toBe(needed.numNvlBytes);
    expect(await hybridEpBufferFor(group, { ...narrow, fp8Dispatch: true }, {})).toBe(grown);
    expect(allocated).toHaveLength(2);
  });

  test("calls that start together allocate once", async () => {
    const { group, allocated, held } = await recordingGroup(2);
    await Promise.all([hybridEpBufferFor(group, need, {}), hybridEpBufferFor(group, need, {})]);
    expect([allocated.length, held()]).toEqual([1, 1]);
  });

  test.each([
    ["hiddenDim", 0, 1, 1],
    ["hiddenDim", Number.NaN, 1, 1],
    ["seqLen", 1, -1, 1],
    ["numLocalExperts", 1, 1, 0.5],
  ])("a wrong %s is refused and the old buffer stays", async (name, hiddenDim, seqLen, numLocalExperts) => {
    const { group, held } = await recordingGroup(2);
    await initHybridEpBuffer(group, 64, 16, 2);
    await expect(initHybridEpBuffer(group, hiddenDim, seqLen, numLocalExperts)).rejects.toThrow(name);
    expect(held()).toBe(1);
  });
});
