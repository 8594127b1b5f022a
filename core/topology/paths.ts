/**
 * The network between two nodes, one direction at a time: all rails and messages together. A path is slow beside the others;
 * of two nodes, beside the way back. Two directions that share the steps of a ring take the same time in a layer: there
 * only dispatches that send one way tell which of them is slow.
 */
import type { Phase } from "../backend.ts";
import type { SlowPath } from "./diagnose.ts";
import { lowerMedian, type Message, transfers } from "./messages.ts";

interface Shape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
}

/** How long a message takes when nothing travels the other way. */
export interface OneWay {
  readonly srcNode: number;
  readonly dstNode: number;
  readonly messageUs: number;
}

export interface PathOptions {
  /** Of pairs of nodes whose directions the layer does not tell apart. */
  readonly oneWay?: readonly OneWay[];
  /** Rows that a source rank sends to a node, relayed there; without, a slow path is one whose messages take longer. */
  readonly numRowsTo?: (srcRank: number, node: number) => number;
  /** What a fault costs at least. */
  readonly leastUs: number;
}

/** A path is slow from this many times the usual on. */
const SLOW_TIMES = 3;
/** One way explains the layer's messages when it takes at least this share of their time. */
const EXPLAINS = 0.25;
/** Clocks of devices are not finer. */
const LEAST_US = 1;

interface Path {
  readonly srcNode: number;
  readonly dstNode: number;
  readonly totalUs: number;
  readonly messageUs: number;
  /** NaN where it is not known. */
  readonly rowUs: number;
}

/** Pairs of nodes, the lower one first, that are each other's source and destination in a step. */
export function pairsSharingSteps({ numRanks, ranksPerNode }: Shape): [number, number][] {
  const numNodes = numRanks / ranksPerNode;
  if (numNodes % 2 !== 0) return [];
  return Array.from({ length: numNodes / 2 }, (_, node) => [node, node + numNodes / 2]);
}

/** Whether a layer spent so long between nodes that the directions should be measured one by one. */
export function asksForOneWay(messages: readonly Message[], shape: Shape, leastUs: number): boolean {
  return pairsSharingSteps(shape).some(([a, b]) => (pathOf(messages, shape, a, b)?.totalUs ?? 0) > leastUs);
}

/** From the phases of a dispatch whose rows go one way between each pair of nodes; the shortest of several is kept. */
export function oneWayTimes(
  trials: readonly { readonly pairs: readonly (readonly [number, number])[]; readonly phases: readonly Phase[] }[],
  { ranksPerNode }: Shape,
): OneWay[] {
  const shortest = new Map<string, OneWay>();
  for (const { pairs, phases } of trials) {
    const all = transfers(phases);
    const between = (rank: number, srcRank: number) =>
      all.filter((phase) => phase.rank === rank && phase.srcRank === srcRank).map(({ durationUs }) => durationUs);
    for (const [srcNode, dstNode] of pairs) {
      const rails = Array.from({ length: ranksPerNode }, (_, rail) => {
        const [src, dst] = [srcNode * ranksPerNode + rail, dstNode * ranksPerNode + rail];
        const [received, sent] = [between(dst, src), between(src, dst)];
        // Either end may wait for the other to come; the rows are under way while both are at it.
        return Math.min(sum(received), sum(sent)) / received.length;
      }).filter((us) => Number.isFinite(us));
      const key = `${srcNode} ${dstNode}`;
      const messageUs = Math.min(lowerMedian(rails), shortest.get(key)?.messageUs ?? Number.POSITIVE_INFINITY);
      if (rails.length > 0) shortest.set(key, { srcNode, dstNode, messageUs });
    }
  }
  return [...shortest.values()];
}

/** The slow directions, and what each rail's ranks waited because of them. */
export function slowPaths(messages: readonly Message[], shape: Shape, options: PathOptions): SlowPath[] {
  const numNodes = shape.numRanks / shape.ranksPerNode;
  const nodes = [...Array(numNodes).keys()];
  const paths = nodes
    .flatMap((src) => nodes.map((dst) => (src === dst ? null : pathOf(messages, shape, src, dst, options.numRowsTo))))
    .filter((path) => path !== null);
  const isShared = ({ srcNode, dstNode }: Path) => 2 * Math.abs(srcNode - dstNode) === numNodes;
  const found = paths.map((path) => {
    if (isShared(path)) return numNodes === 2 ? besideTheWayBack(path, options) : oneOfTwo(path, paths, options);
    return besideOthers(path, paths, options);
  });
  return found.filter((path) => path !== null).sort((a, b) => b.excessUs - a.excessUs);
}

function besideTheWayBack(path: Path, { oneWay = [], leastUs }: PathOptions): SlowPath | null {
  const [there, back] = bothWays(path, oneWay);
  if (there === undefined || back === undefined || there < EXPLAINS * path.messageUs) return null;
  return judged(path, there, back, there / Math.max(back, LEAST_US), leastUs);
}

function besideOthers(path: Path, paths: readonly Path[], { leastUs }: PathOptions): SlowPath | null {
  const ofPair = [path.srcNode, path.dstNode];
  const others = paths.filter(({ srcNode, dstNode }) => !ofPair.includes(srcNode) || !ofPair.includes(dstNode));
  const usualUs = lowerMedian(others.map(({ messageUs }) => messageUs));
  const rowUs = lowerMedian(others.map((one) => one.rowUs).filter((us) => Number.isFinite(us)));
  // Many rows take long, and few rows have long ways for each: slow is what is slow in both respects.
  const perMessage = path.messageUs / Math.max(usualUs, LEAST_US);
  const perRow = Number.isFinite(rowUs) ? path.rowUs / rowUs : Number.POSITIVE_INFINITY;
  return judged(path, path.messageUs, usualUs, Math.min(perMessage, perRow), leastUs);
}

/** Of a pair that shares its steps: slow beside others, then slow this way. Not measured one way: the lower node speaks. */
function oneOfTwo(path: Path, paths: readonly Path[], options: PathOptions): SlowPath | null {
  const slow = besideOthers(path, paths, options);
  if (slow === null) return null;
  const [there, back] = bothWays(path, options.oneWay ?? []);
  if (there === undefined || back === undefined) return path.srcNode < path.dstNode ? { ...slow, orBack: true } : null;
  return back >= SLOW_TIMES * Math.max(there, LEAST_US) ? null : slow;
}

function bothWays({ srcNode, dstNode }: Path, oneWay: readonly OneWay[]): (number | undefined)[] {
  const from = (src: number, dst: number) =>
    oneWay.find((one) => one.srcNode === src && one.dstNode === dst)?.messageUs;
  return [from(srcNode, dstNode), from(dstNode, srcNode)];
}

function judged(path: Path, messageUs: number, usualUs: number, times: number, leastUs: number): SlowPath | null {
  const excessUs = path.totalUs * (1 - 1 / times);
  if (!(times >= SLOW_TIMES) || !(excessUs > leastUs)) return null;
  const { srcNode, dstNode } = path;
  return { kind: "slow-path", srcNode, dstNode, times, messageUs, usualUs, excessUs };
}

/** The middle one of its rails, so that a single slow rail stays one; null without messages. */
function pathOf(
  messages: readonly Message[],
  { ranksPerNode }: Shape,
  srcNode: number,
  dstNode: number,
  numRowsTo?: PathOptions["numRowsTo"],
): Path | null {
  const rails = Array.from({ length: ranksPerNode }, (_, rail) => {
    const [src, dst] = [srcNode * ranksPerNode + rail, dstNode * ranksPerNode + rail];
    const own = messages.filter(({ rank, srcRank }) => rank === dst && srcRank === src).map(({ us }) => us);
    const totalUs = sum(own);
    // Rows of a dispatch this way, and sums of the other way's dispatch.
    const rows = numRowsTo === undefined ? Number.NaN : numRowsTo(src, dstNode) + numRowsTo(dst, srcNode);
    return { srcNode, dstNode, totalUs, messageUs: totalUs / own.length, rowUs: totalUs / rows, count: own.length };
  }).filter(({ count }) => count > 0);
  return rails.sort((a, b) => a.totalUs - b.totalUs)[(rails.length - 1) >> 1] ?? null;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
