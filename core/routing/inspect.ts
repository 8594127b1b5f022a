import { checkShape, numLocalExperts } from "../layout/routing.ts";
import { type RoutingFile, rankBoundaries } from "./import/index.ts";
import {
  COUNT_FORMULAS,
  countRouting,
  LOAD_FORMULAS,
  type LoadStatistics,
  loadStatistics,
  ROUTING_FORMULAS,
  type RoutingCounts,
  type RoutingStatistics,
  routingStatistics,
} from "./statistics/index.ts";

export interface InspectOptions {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** Rounds every expert's slots up in `statistics.padded`; 1 = no padding. */
  readonly padMultiple: number;
  /** One layer's index; default all. */
  readonly layer?: number;
  readonly progress?: (fraction: number) => void;
}

/** One layer: loads per expert, rank and node, and their statistics. Null: counts without tokens cannot say. */
export interface LayerInspection {
  readonly index: number;
  /** What the file calls the layer. */
  readonly layer: string;
  /** [E] slots per expert. */
  readonly expertLoads: Float64Array | Int32Array;
  /** [R] slots per destination rank. */
  readonly rankLoads: Float64Array | Int32Array;
  /** [nodes] slots per destination node. */
  readonly nodeLoads: Float64Array | Int32Array;
  /** [R] rows that each destination rank receives: a row is a (token, destination rank) pair. */
  readonly rankRows: Int32Array | null;
  readonly counts: Omit<RoutingCounts, "slotsPerExpert" | "slotsPerRank" | "slotsPerNode" | "rowsPerRank"> | null;
  readonly statistics: RoutingStatistics;
}

export interface Inspection {
  readonly layers: readonly LayerInspection[];
  /** x = slots per layer. */
  readonly perLayer: LoadStatistics;
  /** x = slots per expert, summed over the layers. */
  readonly allLayers: { readonly experts: LoadStatistics; readonly ranks: LoadStatistics };
  readonly formulas: {
    readonly load: typeof LOAD_FORMULAS;
    readonly routing: typeof ROUTING_FORMULAS;
    readonly counts: typeof COUNT_FORMULAS;
  };
}

/** Loads and statistics of every layer of a file, one layer in memory at a time. */
export async function inspectRouting(file: RoutingFile, options: InspectOptions): Promise<Inspection> {
  const { numRanks, ranksPerNode, padMultiple } = options;
  const shape = { numRanks, ranksPerNode, numExperts: file.numExperts };
  checkShape(shape);
  const indices = options.layer === undefined ? Array.from({ length: file.numLayers }, (_, i) => i) : [options.layer];
  const layers: LayerInspection[] = [];
  for (const index of indices) {
    const counts = file.kind === "counts" ? countLoads(await file.loads(index), shape) : await countLayer(index);
    const { slotsPerExpert, slotsPerRank, slotsPerNode, rowsPerRank, ...rest } = counts;
    const hasRows = file.kind === "tokens";
    layers.push({
      index,
      layer: file.layerNames[index],
      expertLoads: slotsPerExpert,
      rankLoads: slotsPerRank,
      nodeLoads: slotsPerNode,
      rankRows: hasRows ? rowsPerRank : null,
      counts: hasRows ? rest : null,
      statistics: routingStatistics(counts, padMultiple),
    });
    options.progress?.(layers.length / indices.length);
  }
  return {
    layers,
    perLayer: loadStatistics(layers.map((layer) => layer.statistics.experts.total)),
    allLayers: {
      experts: loadStatistics(sumOver(layers.map((layer) => layer.expertLoads))),
      ranks: loadStatistics(sumOver(layers.map((layer) => layer.rankLoads))),
    },
    formulas: { load: LOAD_FORMULAS, routing: ROUTING_FORMULAS, counts: COUNT_FORMULAS },
  };

  async function countLayer(index: number): Promise<RoutingCounts> {
    const layer = await file.layer(index);
    return countRouting(layer.topkIdx.data, file.topk, { ...shape, firstToken: rankBoundaries(layer, numRanks) });
  }
}

/** Loads without tokens: rows and tokens are 0, so that every share of them is null. */
function countLoads(
  loads: Float64Array,
  shape: { numRanks: number; ranksPerNode: number; numExperts: number },
): RoutingCounts {
  const ranks = new Float64Array(shape.numRanks);
  const nodes = new Float64Array(shape.numRanks / shape.ranksPerNode);
  loads.forEach((load, expert) => {
    const rank = Math.floor(expert / numLocalExperts(shape));
    ranks[rank] += load;
    nodes[Math.floor(rank / shape.ranksPerNode)] += load;
  });
  const none = new Int32Array(0);
  return {
    numTokens: 0,
    numSlots: loads.reduce((sum, load) => sum + load, 0),
    numDroppedSlots: 0,
    numEmptyTokens: 0,
    numInvalidSlots: 0,
    slotsPerExpert: loads,
    slotsPerRank: ranks,
    slotsPerNode: nodes,
    tokensPerRank: none,
    rowsPerRank: none,
    sentRowsPerRank: none,
    rowsPerNode: none,
    numRows: 0,
    numRemoteRows: 0,
    numNodeRows: 0,
    numRemoteNodeRows: 0,
  };
}

function sumOver(lists: readonly ArrayLike<number>[]): Float64Array {
  const sum = new Float64Array(lists[0]?.length ?? 0);
  for (const list of lists) for (let i = 0; i < sum.length; i++) sum[i] += list[i];
  return sum;
}
