/** Communication memory of the cuda backend: pure arithmetic, exactly what one rank allocates (fa2a_buffer_size). */

/** Every region starts on a multiple of this. */
const REGION = 256;
/** Tokens that one warp places, in order (kernels/views.cuh). */
const TILE_TOKENS = 32;
const NUM_PARTS = 4;
/** Addresses that one rank publishes to the others (kernels/views.cuh, RankView). */
const VIEW_BYTES = 80;

export interface CudaBufferShape {
  /** Most tokens of any rank. */
  readonly numTokens: number;
  /** Bytes of a row as it crosses a link; 0 for a dispatch, which needs no staging. */
  readonly rowBytes: number;
  readonly topk: number;
  readonly numExperts: number;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** A combine that carries topk weights too. */
  readonly weights: boolean;
  /** Combine by pull: most permuted rows of any rank (hybrid-ep), 0 for fused; absent: push. */
  readonly pulledRows?: number;
}

export interface CudaBufferBytes {
  /** Addresses and tables of the layout: counts of every source, positions per tile. */
  readonly counts: number;
  /** Rows that came back, before they are summed. */
  readonly staging: number;
  readonly stagingWeights: number;
  readonly total: number;
}

/**
 * With B = R + E buckets and W = B counts of a rank (several nodes: B = R + E + nodes, W = B + 3 * (R + nodes), since rows
 * cross in 4 parts) and every region rounded up to 256 bytes:
 *   counts         = region(R * 80) + region(R * W * 4) + region(ceil(tokens / 32) * B * 4) + region(max(R, E) * 4) + region(E * 4)
 *   staging        = region(rows * rowBytes), rows = tokens * min(topk, R) by push: one per (token, destination rank)
 *   stagingWeights = region(rows * topk * 4) when weights come back too
 * A group keeps the largest total of its operations, or what was reserved when that is more.
 */
export function cudaBufferBytes(shape: CudaBufferShape): CudaBufferBytes {
  const { numTokens, topk, numExperts, numRanks } = shape;
  const nodes = numRanks / shape.ranksPerNode;
  const buckets = numRanks + numExperts + (nodes > 1 ? nodes : 0);
  const words = buckets + (nodes > 1 ? (NUM_PARTS - 1) * (numRanks + nodes) : 0);
  const tiles = Math.ceil(numTokens / TILE_TOKENS);
  const rows = shape.pulledRows ?? numTokens * Math.min(topk, numRanks);
  const counts =
    region(numRanks * VIEW_BYTES) +
    region(numRanks * words * 4) +
    region(tiles * buckets * 4) +
    region(Math.max(numRanks, numExperts) * 4) +
    region(numExperts * 4);
  const staging = region(rows * shape.rowBytes);
  const stagingWeights = shape.weights ? region(rows * topk * 4) : 0;
  return { counts, staging, stagingWeights, total: counts + staging + stagingWeights };
}

function region(bytes: number): number {
  return Math.ceil(bytes / REGION) * REGION;
}
