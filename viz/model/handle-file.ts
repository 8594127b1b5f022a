import { InvalidFile } from "../../core/errors.ts";
import { decodeHandle } from "../../core/handle/encode.ts";
import type { HandleData } from "../../core/handle/handle.ts";
import type { SafetensorsFile } from "../../core/io/safetensors/index.ts";
import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import type { Dataset } from "./dataset.ts";
import { countedDataset } from "./memory.ts";

/**
 * A handle (or any output of `apply`, which carries one) as a dataset of one chunk. A permuted handle knows every slot. A
 * fused handle knows destination ranks only: the experts come from recv_topk_idx where the file has it, and else every
 * rank is shown as one expert.
 */
export async function handleDataset(file: SafetensorsFile): Promise<Dataset> {
  const ranks = [...file.tensors.keys()]
    .flatMap((name) => /^rank(\d+)\.handle\.meta$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
  const data = await decodeHandle(ranks, async (name) => (file.tensors.has(name) ? file.read(name) : undefined)).catch(
    (error) => {
      const received = error instanceof Error ? error.message : String(error);
      throw new InvalidFile(
        {
          name: "handle",
          expected: "a sound handle",
          received,
          where: { file: file.name },
          remedy: "write the file again",
        },
        { cause: error },
      );
    },
  );
  const { meta } = data;
  if (ranks.length !== meta.numRanks) {
    throw new InvalidFile({
      name: "handle",
      expected: `the handles of all ${meta.numRanks} ranks`,
      received: `rank ${ranks.join(", ")}`,
      where: { file: file.name },
      remedy: "join the files of all ranks first",
    });
  }
  const hasRows = meta.kind === "fused" && ranks.every((rank) => file.tensors.has(`rank${rank}.recv_topk_idx`));
  const routing =
    meta.kind === "hybrid-ep"
      ? fromSlots(data)
      : hasRows
        ? await fromRows(file, data)
        : { ...fromRanks(data), topkWeights: null };
  const byRank = meta.kind === "fused" && !hasRows;
  const x =
    file.tensors.get("rank0.recv_x") ?? file.tensors.get("rank0.dispatched_hidden") ?? file.tensors.get("rank0.x");
  const hidden = x?.shape[1] ?? 1;
  const header: TraceHeader = {
    producer: "handle file",
    clock: "none",
    numSteps: 1,
    numLayers: 1,
    numRanks: meta.numRanks,
    ranksPerNode: meta.ranksPerNode,
    numExperts: byRank ? meta.numRanks : meta.numExperts,
    topk: routing.topk,
    hidden,
    dtype: x?.dtype ?? "bf16",
    rowBytes: x && x.shape[0] > 0 ? x.bytes / x.shape[0] : 2,
    style: meta.kind,
    settings: {
      expertAlignment: meta.expertAlignment,
      numWorstTokens: meta.numWorstTokens,
      padMultiple: meta.padMultiple,
      numPermutedTokens: meta.numPermutedTokens,
    },
  };
  const notes = ["A handle holds no times."];
  if (byRank) notes.push("A fused handle knows destination ranks, not experts: each rank is shown as one expert.");
  if (!x) notes.push("The file holds no rows: bytes count 2 bytes per row.");
  if (!routing.topkWeights) notes.push("The file holds no weights.");
  const chunk: TraceChunk = { topkIdx: routing.topkIdx, topkWeights: routing.topkWeights, phases: [] };
  const hasWeights = routing.topkWeights !== null;
  const about = { name: file.name, kind: "handle" as const, notes, hasWeights, close: () => file.close() };
  return countedDataset(about, header, async () => chunk);
}

interface Routing {
  readonly topk: number;
  readonly topkIdx: Int32Array[];
  readonly topkWeights: Float32Array[] | null;
}

/** Permuted: every entry names its expert and slot; what overflow cut is listed too. */
function fromSlots({ meta, ranks }: HandleData): Routing {
  const { topk } = meta;
  const topkIdx = ranks.map((rank) => {
    const ids = new Int32Array(rank.numTokens * topk).fill(-1);
    for (let i = 0; i < rank.sendRank.length; i++) {
      if (rank.sendRank[i] < 0 || !rank.sendExpert || !rank.sendSlot) continue;
      ids[Math.floor(i / rank.numEntries) * topk + rank.sendSlot[i]] = rank.sendExpert[i];
    }
    return ids;
  });
  for (const { overflow } of ranks) {
    for (let i = 0; i < overflow.cut.length; i += 4) {
      const [src, token, slot, expert] = overflow.cut.subarray(i, i + 4);
      topkIdx[src][token * topk + slot] = expert;
    }
  }
  return { topk, topkIdx, topkWeights: null };
}

/** Fused with its outputs: recv_topk_idx holds local ids in the slots they came from. */
async function fromRows(file: SafetensorsFile, { meta, ranks }: HandleData): Promise<Routing> {
  const { topk } = meta;
  const expertsPerRank = meta.numExperts / meta.numRanks;
  const topkIdx = ranks.map((rank) => new Int32Array(rank.numTokens * topk).fill(-1));
  const weighted = ranks.every(({ rank }) => file.tensors.has(`rank${rank}.recv_topk_weights`));
  const topkWeights = topkIdx.map((ids) => new Float32Array(ids.length));
  for (const { rank, numRows, rowSrcRank, rowSrcToken, overflow } of ranks) {
    const ids = (await file.read(`rank${rank}.recv_topk_idx`)).data;
    const weights = weighted ? ((await file.read(`rank${rank}.recv_topk_weights`)).data as Float32Array) : null;
    for (let row = 0; row < numRows; row++) {
      for (let slot = 0; rowSrcRank[row] >= 0 && slot < topk; slot++) {
        const local = Number(ids[row * topk + slot]);
        if (local < 0) continue;
        topkIdx[rowSrcRank[row]][rowSrcToken[row] * topk + slot] = rank * expertsPerRank + local;
        if (weights) topkWeights[rowSrcRank[row]][rowSrcToken[row] * topk + slot] = weights[row * topk + slot];
      }
    }
    for (let i = 0; i < overflow.cut.length; i += 4) {
      const [src, token, slot, expert] = overflow.cut.subarray(i, i + 4);
      topkIdx[src][token * topk + slot] = expert;
    }
  }
  return { topk, topkIdx, topkWeights: weighted ? topkWeights : null };
}

/** Fused alone: a slot per (token, destination rank). */
function fromRanks({ ranks }: HandleData): Omit<Routing, "topkWeights"> {
  return { topk: Math.max(...ranks.map((rank) => rank.numEntries)), topkIdx: ranks.map((rank) => rank.sendRank) };
}
