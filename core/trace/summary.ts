import { roundUp } from "../layout/counts.ts";
import { fusedHandle } from "../layout/positions.ts";
import type { RankRouting } from "../layout/routing.ts";
import { BUFFER_ROWS, TOTALS, type TraceHeader } from "./format.ts";

/** The whole numbers of one (step, layer), counted from its routing in one pass. */
export interface ChunkSummary {
  /** [6], columns TOTALS. */
  readonly totals: Int32Array;
  /** [R] */
  readonly numTokens: Int32Array;
  /** [E] slots per physical expert. */
  readonly expertLoad: Int32Array;
  /** [R, 4], columns BUFFER_ROWS, per destination. */
  readonly bufferRows: Int32Array;
  /** [R, R] slots from row rank to column rank. */
  readonly trafficSlots: Int32Array;
  /** [R, R] rows from row rank to column rank: each (token, destination rank) once. */
  readonly trafficRows: Int32Array;
}

type Shape = Pick<TraceHeader, "numRanks" | "ranksPerNode" | "numExperts" | "topk" | "style" | "settings">;

export function summarizeChunk(header: Shape, topkIdx: readonly Int32Array[]): ChunkSummary {
  const { numRanks, numExperts, topk } = header;
  const expertsPerRank = numExperts / numRanks;
  const rankOfExpert = Int32Array.from({ length: numExperts }, (_, e) => Math.floor(e / expertsPerRank));
  const numTokens = new Int32Array(numRanks);
  const expertLoad = new Int32Array(numExperts);
  const trafficSlots = new Int32Array(numRanks * numRanks);
  const trafficRows = new Int32Array(numRanks * numRanks);
  const lastToken = new Int32Array(numRanks);
  let emptySlots = 0;
  topkIdx.forEach((ids, src) => {
    numTokens[src] = ids.length / topk;
    lastToken.fill(-1);
    for (let i = 0, token = 0; i < ids.length; token++) {
      for (const end = i + topk; i < end; i++) {
        const expert = ids[i];
        if (expert < 0) {
          emptySlots++;
          continue;
        }
        expertLoad[expert]++;
        const dst = rankOfExpert[expert];
        const cell = src * numRanks + dst;
        trafficSlots[cell]++;
        if (lastToken[dst] === token) continue;
        lastToken[dst] = token;
        trafficRows[cell]++;
      }
    }
  });
  const totals = new Int32Array(TOTALS.length);
  totals[0] = sum(numTokens);
  totals[1] = emptySlots;
  totals[2] = sum(expertLoad);
  totals[4] = sum(trafficRows);
  totals[3] = totals[2] - diagonal(trafficSlots, numRanks);
  totals[5] = totals[4] - diagonal(trafficRows, numRanks);
  const bufferRows =
    header.style === "fused"
      ? fusedBufferRows(header, topkIdx, trafficRows)
      : hybridEpBufferRows(header, expertLoad, expertsPerRank);
  return { totals, numTokens, expertLoad, bufferRows, trafficSlots, trafficRows };
}

function fusedBufferRows(header: Shape, topkIdx: readonly Int32Array[], trafficRows: Int32Array): Int32Array {
  const { numRanks, settings, topk } = header;
  const budget = settings.numWorstTokens;
  const result = new Int32Array(numRanks * BUFFER_ROWS.length);
  let overflows = false;
  for (let dst = 0; dst < numRanks; dst++) {
    let rows = 0;
    for (let src = 0; src < numRanks; src++) rows += trafficRows[src * numRanks + dst];
    const used = budget > 0 ? Math.min(rows, budget) : rows;
    overflows ||= used < rows;
    result.set([used, 0, budget > 0 ? budget - used : 0, 0], dst * BUFFER_ROWS.length);
  }
  if (!overflows) return result;
  const routings = topkIdx.map((ids, rank): RankRouting => {
    return { rank, numTokens: ids.length / topk, topk, topkIdx: ids, topkWeights: null };
  });
  for (const { rank, overflow } of fusedHandle(routings, header, settings).ranks) {
    result[rank * BUFFER_ROWS.length + 3] = overflow.numCut;
  }
  return result;
}

function hybridEpBufferRows(header: Shape, expertLoad: Int32Array, expertsPerRank: number): Int32Array {
  const { padMultiple, numPermutedTokens } = header.settings;
  const budget = numPermutedTokens ?? Number.POSITIVE_INFINITY;
  const result = new Int32Array(header.numRanks * BUFFER_ROWS.length);
  for (let dst = 0; dst < header.numRanks; dst++) {
    let wantedRow = 0;
    let used = 0;
    let cut = 0;
    for (let expert = dst * expertsPerRank; expert < (dst + 1) * expertsPerRank; expert++) {
      const fits = Math.min(expertLoad[expert], Math.max(0, budget - wantedRow));
      used += fits;
      cut += expertLoad[expert] - fits;
      wantedRow += roundUp(expertLoad[expert], padMultiple);
    }
    const end = Math.min(wantedRow, budget);
    const tail = numPermutedTokens === null ? 0 : numPermutedTokens - end;
    result.set([used, end - used, tail, cut], dst * BUFFER_ROWS.length);
  }
  return result;
}

function sum(values: Int32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

function diagonal(matrix: Int32Array, size: number): number {
  let total = 0;
  for (let i = 0; i < size; i++) total += matrix[i * size + i];
  return total;
}

/** Throws with `bad` unless the chunk has one array per rank of whole tokens, ids in range, no expert twice in a token. */
export function checkChunk(
  header: TraceHeader,
  topkIdx: readonly Int32Array[],
  bad: (expected: string, received: string, rank: number, token: number, slot: number) => Error,
): void {
  const { topk, numExperts } = header;
  const lastToken = new Int32Array(numExperts);
  topkIdx.forEach((ids, rank) => {
    lastToken.fill(-1);
    for (let i = 0, token = 0; i < ids.length; token++) {
      for (let slot = 0; slot < topk; slot++, i++) {
        const expert = ids[i];
        if (expert === -1) continue;
        if (expert < -1 || expert >= numExperts) {
          throw bad(`an expert in -1..${numExperts - 1}`, `${expert}`, rank, token, slot);
        }
        if (lastToken[expert] === token) {
          throw bad("each expert once per token", `expert ${expert} a second time`, rank, token, slot);
        }
        lastToken[expert] = token;
      }
    }
  });
}
