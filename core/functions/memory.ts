/** Bytes of every tensor and buffer of one rank: the calculator behind `check`. */
import { fusedBufferBytes, hybridEpBufferBytes } from "./bufferSize.ts";
import { cudaBufferBytes } from "./cudaMemory.ts";
import type { Sizes } from "./limits.ts";

export interface MemoryItem {
  readonly name: string;
  readonly bytes: number;
  readonly formula: string;
  /** Allocated ahead by getBuffer or initHybridEpBuffer, exactly this size. */
  readonly buffer: boolean;
}

/** The largest outputs are those of the worst routing: every token of every rank chooses this rank. */
export function memoryOfRank(sizes: Sizes, style: "fused" | "hybrid-ep", elementBytes: number): MemoryItem[] {
  const { numRanks, ranksPerNode, numExperts, topk, hidden, numTokens, fp8 } = sizes;
  const scales = fp8 ? 4 * Math.ceil(hidden / 128) : 0;
  const rowBytes = hidden * elementBytes + scales;
  const sumBytes = hidden * Math.max(2, elementBytes);
  const localExperts = numExperts / numRanks;
  const expected = numTokens * numRanks * expectedShare(numExperts, localExperts, topk);
  const perToken = style === "fused" ? 1 : Math.min(topk, localExperts);
  const meanRows = style === "fused" ? expected : numTokens * topk;
  const rowFormula = style === "fused" ? "rows" : "permuted rows";
  const hiddenBytes = hidden * Math.max(elementBytes, 2);
  const buffer =
    style === "fused"
      ? fusedBufferBytes({ numRanks, ranksPerNode }, hiddenBytes)
      : hybridEpBufferBytes({
          numRanks,
          ranksPerNode,
          hiddenDim: hidden,
          seqLen: numTokens,
          numLocalExperts: localExperts,
          fp8Dispatch: fp8,
        });
  const cuda = cudaBufferBytes({
    numTokens,
    rowBytes: sumBytes,
    topk,
    numExperts,
    numRanks,
    ranksPerNode,
    weights: style === "fused",
  });
  const cudaGrowth = Math.max(0, cuda.total - buffer.numNvlBytes - buffer.numRdmaBytes);
  const item = (name: string, bytes: number, formula: string, isBuffer = false): MemoryItem => ({
    name,
    bytes: Math.ceil(bytes),
    formula,
    buffer: isBuffer,
  });
  return [
    item("x", numTokens * rowBytes, "tokens x row bytes"),
    item("dispatched x, uniform routing", meanRows * rowBytes, `expected ${rowFormula} x row bytes`),
    item(
      "dispatched x, worst routing",
      numTokens * numRanks * perToken * rowBytes,
      `every token of every rank, ${perToken} ${rowFormula} each`,
    ),
    item("expert output, uniform routing", meanRows * sumBytes, `expected ${rowFormula} x hidden x sum bytes`),
    item("combined x", numTokens * sumBytes, "tokens x hidden x sum bytes"),
    item("NVLink buffer", buffer.numNvlBytes, style === "fused" ? "fusedBufferBytes" : "hybridEpBufferBytes", true),
    item("network buffer", buffer.numRdmaBytes, "0 on one node", true),
    item("growth of the buffers by a cuda combine", cudaGrowth, "cudaBufferBytes - buffers, at least 0"),
  ];
}

/** Share of tokens that need a given rank under uniform routing: 1 - C(E - L, k) / C(E, k). */
function expectedShare(numExperts: number, localExperts: number, topk: number): number {
  let missed = 1;
  for (let i = 0; i < topk; i++) missed *= Math.max(0, numExperts - localExperts - i) / (numExperts - i);
  return 1 - missed;
}
