/**
 * The handle as named tensors (docs/handle.md): `handle.meta` and the arrays of each rank, so that any tensor container
 * can carry it. Everything needed is in the tensors: settings repeated in a file's metadata are for people.
 */
import { InvalidArgument } from "../errors.ts";
import { type Tensor, tensor } from "../tensor.ts";
import { checkHandleData } from "./check.ts";
import type { HandleData, HandleMeta, RankHandle } from "./handle.ts";

export const HANDLE_VERSION = 1;

const META_FIELDS = [
  "version",
  "kind",
  "numRanks",
  "ranksPerNode",
  "numExperts",
  "topk",
  "expertAlignment",
  "numWorstTokens",
  "padMultiple",
  "numPermutedTokens",
  "numTokens",
  "numEntries",
  "numRows",
] as const;
type MetaField = (typeof META_FIELDS)[number];

/** `rank{r}.handle.NAME` -> tensor, for every local rank. */
export function encodeHandle(data: HandleData): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  const { meta } = data;
  for (const rank of data.ranks) {
    const lists = [rank.numTokens, rank.numEntries];
    const put = (name: string, shape: number[], values: Int32Array) =>
      tensors.set(`rank${rank.rank}.handle.${name}`, tensor("i32", shape, values));
    const fields: Record<MetaField, number> = {
      version: HANDLE_VERSION,
      kind: meta.kind === "fused" ? 0 : 1,
      numRanks: meta.numRanks,
      ranksPerNode: meta.ranksPerNode,
      numExperts: meta.numExperts,
      topk: meta.topk,
      expertAlignment: meta.expertAlignment,
      numWorstTokens: meta.numWorstTokens,
      padMultiple: meta.padMultiple,
      numPermutedTokens: meta.numPermutedTokens ?? -1,
      numTokens: rank.numTokens,
      numEntries: rank.numEntries,
      numRows: rank.numRows,
    };
    const values = BigInt64Array.from(META_FIELDS, (field) => BigInt(fields[field]));
    tensors.set(`rank${rank.rank}.handle.meta`, tensor("i64", [values.length], values));
    put("send_rank", lists, rank.sendRank);
    put("send_row", lists, rank.sendRow);
    if (rank.sendExpert !== null) put("send_expert", lists, rank.sendExpert);
    if (rank.sendSlot !== null) put("send_slot", lists, rank.sendSlot);
    put("row_src_rank", [rank.numRows], rank.rowSrcRank);
    put("row_src_token", [rank.numRows], rank.rowSrcToken);
    put("tokens_per_expert", [rank.tokensPerExpert.length], rank.tokensPerExpert);
    put("num_tokens_per_expert", [rank.numTokensPerExpert.length], rank.numTokensPerExpert);
    put("overflow_cut", [rank.overflow.numCut, 4], rank.overflow.cut);
  }
  return tensors;
}

/**
 * The handle held by named tensors; `read` answers undefined for a name that is not there. Throws InvalidArgument for a
 * missing tensor, an unknown version, or arrays that contradict each other.
 */
export async function decodeHandle(
  localRanks: readonly number[],
  read: (name: string) => Promise<Tensor | undefined>,
): Promise<HandleData> {
  const decoded: Awaited<ReturnType<typeof decodeRank>>[] = [];
  for (const rank of localRanks) decoded.push(await decodeRank(rank, read));
  const data: HandleData = {
    meta: { ...decoded[0].meta, localRanks: [...localRanks] },
    ranks: decoded.map((one) => one.rank),
  };
  decoded.forEach(({ meta }, i) => {
    for (const field of Object.keys(meta) as (keyof typeof meta)[]) {
      if (meta[field] === decoded[0].meta[field]) continue;
      throw problem(localRanks[i], `handle.meta ${field}`, `${decoded[0].meta[field]} as rank 0`, `${meta[field]}`);
    }
  });
  checkHandleData(data);
  return data;
}

async function decodeRank(
  rank: number,
  read: (name: string) => Promise<Tensor | undefined>,
): Promise<{ meta: Omit<HandleMeta, "localRanks">; rank: RankHandle }> {
  const optional = async (name: string) => (await read(`rank${rank}.handle.${name}`))?.data as Int32Array | undefined;
  const required = async (name: string): Promise<Int32Array> => {
    const found = await optional(name);
    if (found === undefined) throw problem(rank, `handle.${name}`, `a tensor rank${rank}.handle.${name}`, "none");
    return found;
  };
  const values = Array.from((await required("meta")) as unknown as BigInt64Array, Number);
  const field = (name: MetaField) => values[META_FIELDS.indexOf(name)];
  if (field("version") !== HANDLE_VERSION) {
    throw problem(rank, "handle version", `${HANDLE_VERSION}`, `${field("version")}`);
  }
  const hybrid = field("kind") === 1;
  const budget = field("numPermutedTokens");
  const cut = await required("overflow_cut");
  return {
    meta: {
      kind: hybrid ? "hybrid-ep" : "fused",
      numRanks: field("numRanks"),
      ranksPerNode: field("ranksPerNode"),
      numExperts: field("numExperts"),
      topk: field("topk"),
      expertAlignment: field("expertAlignment"),
      numWorstTokens: field("numWorstTokens"),
      padMultiple: field("padMultiple"),
      numPermutedTokens: budget < 0 ? null : budget,
    },
    rank: {
      rank,
      numTokens: field("numTokens"),
      numEntries: field("numEntries"),
      numRows: field("numRows"),
      sendRank: await required("send_rank"),
      sendRow: await required("send_row"),
      sendExpert: hybrid ? await required("send_expert") : null,
      sendSlot: hybrid ? await required("send_slot") : null,
      rowSrcRank: await required("row_src_rank"),
      rowSrcToken: await required("row_src_token"),
      tokensPerExpert: await required("tokens_per_expert"),
      numTokensPerExpert: await required("num_tokens_per_expert"),
      overflow: { flag: cut.length > 0, numCut: cut.length / 4, cut },
    },
  };
}

function problem(rank: number, name: string, expected: string, received: string): InvalidArgument {
  const remedy = "use the handle tensors of one dispatch, unchanged";
  return new InvalidArgument({ name, expected, received, where: { rank }, remedy });
}
