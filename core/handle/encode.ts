/**
 * The handle as named tensors (docs/handle.md): `handle.meta` and the arrays of each rank, so that any tensor container
 * can carry it. Everything needed is in the tensors: settings repeated in a file's metadata are for people.
 */
import type { DType } from "../dtype/dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { expectTensor, type Tensor, tensor } from "../tensor.ts";
import { checkHandleData } from "./check.ts";
import { HANDLE_REMEDY } from "./checkMeta.ts";
import type { HandleData, HandleMeta, RankHandle } from "./handle.ts";
import { META_NUMBERS, type MetaNumbers, metaNumbers, metaOfNumbers } from "./metaNumbers.ts";

export const HANDLE_VERSION = 1;

const META_FIELDS = ["version", ...META_NUMBERS, "numTokens", "numEntries", "numRows"] as const;
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
      ...metaNumbers(meta),
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
 * missing tensor, an unknown version, a wrong dtype or shape, or arrays that contradict each other.
 */
export async function decodeHandle(
  localRanks: readonly number[],
  read: (name: string) => Promise<Tensor | undefined>,
): Promise<HandleData> {
  const decoded: Awaited<ReturnType<typeof decodeRank>>[] = [];
  for (const rank of localRanks) decoded.push(await decodeRank(rank, read));
  const [first] = decoded;
  if (first === undefined) throw problem(undefined, "handle ranks", "at least one", "none");
  decoded.forEach(({ meta }, i) => {
    for (const field of Object.keys(meta) as (keyof typeof meta)[]) {
      if (meta[field] === first.meta[field]) continue;
      const expected = `${first.meta[field]} as rank ${localRanks[0]}`;
      throw problem(localRanks[i], `handle.meta ${field}`, expected, `${meta[field]}`);
    }
  });
  const data: HandleData = {
    meta: { ...first.meta, localRanks: [...localRanks] },
    ranks: decoded.map((one) => one.rank),
  };
  checkHandleData(data);
  return data;
}

async function decodeRank(
  rank: number,
  read: (name: string) => Promise<Tensor | undefined>,
): Promise<{ meta: Omit<HandleMeta, "localRanks">; rank: RankHandle }> {
  const required = async (name: string, dtype: DType, shape: (number | null)[]) => {
    const found = await read(`rank${rank}.handle.${name}`);
    if (found === undefined) throw problem(rank, `handle.${name}`, `a tensor rank${rank}.handle.${name}`, "none");
    expectTensor(`handle.${name}`, found, [dtype], shape, { rank });
    return found.data;
  };
  const values = Array.from((await required("meta", "i64", [null])) as BigInt64Array, Number);
  const field = (name: MetaField) => values[META_FIELDS.indexOf(name)];
  if (field("version") !== HANDLE_VERSION || values.length !== META_FIELDS.length) {
    const received = values.length === 0 ? "none" : `version ${field("version")} of ${values.length} fields`;
    throw problem(rank, "handle version", `version ${HANDLE_VERSION} of ${META_FIELDS.length} fields`, received);
  }
  const numbers = Object.fromEntries(META_NUMBERS.map((name) => [name, field(name)])) as MetaNumbers;
  const meta = metaOfNumbers(numbers);
  if (meta.kind === undefined) throw problem(rank, "handle kind", "0 (fused) or 1 (hybrid-ep)", `${field("kind")}`);
  const hybrid = meta.kind === "hybrid-ep";
  const array = async (name: string, shape: (number | null)[]) => (await required(name, "i32", shape)) as Int32Array;
  const lists = [field("numTokens"), field("numEntries")];
  const cut = await array("overflow_cut", [null, 4]);
  return {
    meta,
    rank: {
      rank,
      numTokens: field("numTokens"),
      numEntries: field("numEntries"),
      numRows: field("numRows"),
      sendRank: await array("send_rank", lists),
      sendRow: await array("send_row", lists),
      sendExpert: hybrid ? await array("send_expert", lists) : null,
      sendSlot: hybrid ? await array("send_slot", lists) : null,
      rowSrcRank: await array("row_src_rank", [field("numRows")]),
      rowSrcToken: await array("row_src_token", [field("numRows")]),
      tokensPerExpert: await array("tokens_per_expert", [null]),
      numTokensPerExpert: await array("num_tokens_per_expert", [null]),
      overflow: { flag: cut.length > 0, numCut: cut.length / 4, cut },
    },
  };
}

function problem(rank: number | undefined, name: string, expected: string, received: string): InvalidArgument {
  const where = rank === undefined ? {} : { rank };
  return new InvalidArgument({ name, expected, received, where, remedy: HANDLE_REMEDY });
}
