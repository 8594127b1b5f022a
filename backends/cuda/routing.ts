/** Routing of a request: checked, and in the form that the library takes. */
import type { DispatchRequest, RoutingInput } from "../../core/backend.ts";
import { checkRouting } from "../../core/functions/validate.ts";
import { type AnyTensor, expectTensor, shapeAlone, type Tensor, tensor } from "../../core/tensor.ts";
import type { Context } from "./context.ts";
import { isResident, nativeArrays, standInRouting } from "./inputs.ts";
import type { NativeArrays } from "./native.ts";
import { freeAll } from "./outputs.ts";

export interface RoutingArrays {
  /** Columns of topkIdx. */
  readonly topk: number;
  readonly topkIdx: NativeArrays;
  readonly topkWeights: NativeArrays | null;
  /** Frees what was made on the way. */
  free(): void;
}

/** Routing that is ready to be checked, and how to turn it into arrays once it was. */
export interface PreparedRouting {
  /** For checkDispatch and checkRouting. */
  readonly checked: RoutingInput;
  arrays(): Promise<RoutingArrays>;
}

const NOTHING = () => {};

/**
 * `routing` is localised. A multihot routing has as many columns as its fullest token needs: in an operation of several
 * processes (`together`) as many as the fullest of all processes.
 */
export async function prepareRouting(
  context: Context,
  routing: RoutingInput,
  kind: DispatchRequest["kind"],
  numExperts: number,
  together: boolean,
): Promise<PreparedRouting> {
  const topkOfAll = together ? (topk: number) => fullest(context, topk) : async (topk: number) => topk;
  if ("topkIdx" in routing) return indexForm(routing);
  const { owner, self } = context;
  if (!routing.routingMap.some((value) => isResident(owner, value))) {
    const { routings, idDtype } = await checkRouting(self, routing, numExperts);
    const isWide = kind === "fused" && idDtype === "i64";
    const own = Math.max(...routings.map(({ topk }) => topk));
    const topk = await topkOfAll(own);
    return indexForm({
      topkIdx: routings.map((rank) => {
        const ids = widen(rank.topkIdx, rank.topk, topk, new Int32Array(rank.numTokens * topk).fill(-1));
        const shape = [rank.numTokens, topk];
        return isWide ? tensor("i64", shape, BigInt64Array.from(ids, BigInt)) : tensor("i32", shape, ids);
      }),
      topkWeights:
        routings[0].topkWeights &&
        routings.map((rank) => {
          const weights = rank.topkWeights as Float32Array<ArrayBuffer>;
          const wide = widen(weights, rank.topk, topk, new Float32Array(rank.numTokens * topk));
          return tensor("fp32", [rank.numTokens, topk], wide);
        }),
    });
  }
  return multihotOnDevice(context, routing, numExperts, topkOfAll);
}

async function fullest({ link }: Context, topk: number): Promise<number> {
  return link === null ? topk : Math.max(...(await link.exchange("topk of a multihot routing", topk, true)));
}

/** Rows of `columns` values with room for more. */
function widen<A extends Int32Array | Float32Array>(rows: A, columns: number, room: number, into: A): A {
  if (columns === room) return rows;
  for (let from = 0, to = 0; from < rows.length; from += columns, to += room) {
    into.set(rows.subarray(from, from + columns), to);
  }
  return into;
}

function indexForm({ topkIdx, topkWeights }: Extract<RoutingInput, { topkIdx: unknown }>): PreparedRouting {
  return {
    checked: standInRouting({ topkIdx, topkWeights }),
    arrays: async () => ({
      topk: topkIdx[0].shape[1],
      topkIdx: nativeArrays(topkIdx),
      topkWeights: topkWeights && nativeArrays(topkWeights),
      free: NOTHING,
    }),
  };
}

function multihotOnDevice(
  { self, owner, group }: Context,
  { routingMap: maps, probs }: Extract<RoutingInput, { routingMap: unknown }>,
  numExperts: number,
  topkOfAll: (topk: number) => Promise<number>,
): PreparedRouting {
  maps.forEach((map, i) => {
    const where = { rank: self.localRanks[i] };
    expectTensor("routingMap", map, ["bool", "u8"], [null, numExperts], where);
    if (probs?.[i]) expectTensor("probs", probs[i], ["fp32"], [map.shape[0], numExperts], where);
  });
  // How many columns the index form has, only the device knows: one stands for them in the check of rows.
  const topkIdx = maps.map((map: AnyTensor): Tensor => shapeAlone("i32", [map.shape[0], 1]));
  return {
    checked: { topkIdx, topkWeights: null },
    arrays: async () => {
      const make = (topk: number) =>
        owner.addon.fromMultihot(group, nativeArrays(maps), probs && nativeArrays(probs), topk);
      let made = await make(0);
      const own = made.topkIdx[0].columns;
      const topk = await topkOfAll(own).catch((error) => {
        freeAll(owner, made.topkIdx, made.topkWeights);
        throw error;
      });
      if (topk !== own) {
        freeAll(owner, made.topkIdx, made.topkWeights);
        made = await make(topk);
      }
      const refs = (list: typeof made.topkIdx) => list.map(({ tensor }) => ({ tensor }));
      return {
        topk,
        topkIdx: refs(made.topkIdx),
        topkWeights: made.topkWeights && refs(made.topkWeights),
        free: () => freeAll(owner, made.topkIdx, made.topkWeights),
      };
    },
  };
}
