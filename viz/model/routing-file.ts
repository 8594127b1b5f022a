import { InvalidFile } from "../../core/errors.ts";
import type { ByteSource } from "../../core/io/bytes.ts";
import { openRouting, type RoutingFile, splitRanks } from "../../core/routing/import/index.ts";
import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import { checkChunk } from "../../core/trace/summary.ts";
import type { Dataset, OpenOptions } from "./dataset.ts";
import { countedDataset, remember } from "./memory.ts";

/** A routing file of any format core knows, laid on ranks, as a dataset; all layers are counted while it opens. */
export async function routingDataset(source: ByteSource, options: OpenOptions): Promise<Dataset> {
  const { placement, signal, progress } = options;
  const wanted = placement.experts > 0 ? { numExperts: placement.experts } : {};
  const file = await openRouting(source, { ...wanted, progress: (fraction) => progress?.(fraction * 0.3) });
  try {
    if (file.kind === "counts") await file.layer(0);
    const header = headerOf(file, placement);
    const { topkWeights } = await file.layer(0);
    const hasWeights = topkWeights !== null;
    const chunk = (_step: number, layer: number) => readChunk(file, header, layer, hasWeights);
    const notes = [
      `Format: ${file.format}. It holds no times and no row size: bytes count 2 per row.`,
      ...file.remarks,
    ];
    if (file.numRanks === null) {
      notes.push(`Its tokens were laid on ${header.numRanks} ranks in order: see "Ranks" above the picture.`);
    }
    if (header.numExperts !== file.numExperts) {
      notes.push(
        `${file.numExperts} experts are no multiple of ${header.numRanks} ranks: ${header.numExperts} are shown.`,
      );
    }
    if (!hasWeights) notes.push("The file holds no weights.");
    const about = { name: file.name, kind: "routing" as const, notes, hasWeights, close: () => file.close() };
    const inMemory = file.numLayers * file.numTokens * file.topk * 8 < 64 << 20;
    const dataset = countedDataset(about, header, remember(chunk, inMemory ? Math.max(4, file.numLayers) : 4));
    await dataset.count(0, {
      ...(signal ? { signal } : {}),
      progress: (fraction) => progress?.(0.3 + 0.7 * fraction),
    });
    return dataset;
  } catch (error) {
    await file.close();
    throw error;
  }
}

function headerOf(file: RoutingFile, placement: OpenOptions["placement"]): TraceHeader {
  const numRanks = file.numRanks ?? placement.ranks;
  return {
    producer: `routing file (${file.format})`,
    clock: "none",
    numSteps: 1,
    numLayers: file.numLayers,
    numRanks,
    ranksPerNode: numRanks % placement.nodes === 0 ? numRanks / placement.nodes : numRanks,
    numExperts: Math.ceil(file.numExperts / numRanks) * numRanks,
    topk: file.topk,
    hidden: 1,
    dtype: "bf16",
    rowBytes: 2,
    style: placement.style,
    settings: { expertAlignment: 1, numWorstTokens: 0, padMultiple: placement.pad, numPermutedTokens: null },
  };
}

async function readChunk(
  file: RoutingFile,
  header: TraceHeader,
  layer: number,
  hasWeights: boolean,
): Promise<TraceChunk> {
  const ranks = splitRanks(await file.layer(layer), header.numRanks);
  const topkIdx = ranks.map((rank) => rank.topkIdx.data);
  checkChunk(header, topkIdx, (expected, received, rank, token, slot) => {
    const where = { file: file.name, rank, token, slot };
    const remedy = "lint and convert the file with fused-a2a convert";
    return new InvalidFile({ name: `topk_idx of layer ${file.layerNames[layer]}`, expected, received, where, remedy });
  });
  const weights = ranks.map((rank) => rank.topkWeights?.data ?? new Float32Array(rank.topkIdx.data.length));
  for (const [rank, values] of weights.entries()) {
    const at = values.findIndex((weight) => Number.isNaN(weight));
    if (at < 0) continue;
    throw new InvalidFile({
      name: `topk_weights of layer ${file.layerNames[layer]}`,
      expected: "numbers",
      received: "NaN",
      where: { file: file.name, rank, token: Math.floor(at / header.topk), slot: at % header.topk },
      remedy: "lint and convert the file with fused-a2a convert",
    });
  }
  return { topkIdx, topkWeights: hasWeights ? weights : null, phases: [] };
}
