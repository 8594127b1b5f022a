/** Routing of a request: checked, and in the form that the library takes. */
import type { DispatchRequest, RoutingInput } from "../../core/backend.ts";
import { checkRouting } from "../../core/functions/validate.ts";
import { type AnyTensor, expectTensor, type Tensor, tensor } from "../../core/tensor.ts";
import type { Context } from "./context.ts";
import { isResident, nativeArrays, standInRouting } from "./inputs.ts";
import type { NativeArrays } from "./native.ts";
import { freeAll } from "./outputs.ts";

export interface RoutingArrays {
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

/** `routing` is localised. */
export async function prepareRouting(
  context: Context,
  routing: RoutingInput,
  kind: DispatchRequest["kind"],
  numExperts: number,
): Promise<PreparedRouting> {
  if ("topkIdx" in routing) return indexForm(routing);
  const { owner, self } = context;
  if (!routing.routingMap.some((value) => isResident(owner, value))) {
    const { routings, idDtype } = await checkRouting(self, routing, numExperts);
    const wide = kind === "fused" && idDtype === "i64";
    return indexForm({
      topkIdx: routings.map(({ topkIdx, numTokens, topk }) =>
        wide
          ? tensor("i64", [numTokens, topk], BigInt64Array.from(topkIdx, BigInt))
          : tensor("i32", [numTokens, topk], topkIdx),
      ),
      topkWeights: routings[0].topkWeights && routings.map(weightsOf),
    });
  }
  return multihotOnDevice(context, routing, numExperts);
}

function indexForm({ topkIdx, topkWeights }: Extract<RoutingInput, { topkIdx: unknown }>): PreparedRouting {
  return {
    checked: standInRouting({ topkIdx, topkWeights }),
    arrays: async () => ({
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
): PreparedRouting {
  maps.forEach((map, i) => {
    const where = { rank: self.localRanks[i] };
    expectTensor("routingMap", map, ["bool", "u8"], [null, numExperts], where);
    if (probs?.[i]) expectTensor("probs", probs[i], ["fp32"], [map.shape[0], numExperts], where);
  });
  // How many columns the index form has, only the device knows: one stands for them in the check of rows.
  const topkIdx = maps.map(
    (map: AnyTensor): Tensor => ({ dtype: "i32", shape: [map.shape[0], 1], data: new Int32Array(0) }),
  );
  return {
    checked: { topkIdx, topkWeights: null },
    arrays: async () => {
      const made = await owner.addon.fromMultihot(group, nativeArrays(maps), probs && nativeArrays(probs), 0);
      const refs = (list: typeof made.topkIdx) => list.map(({ tensor }) => ({ tensor }));
      return {
        topkIdx: refs(made.topkIdx),
        topkWeights: made.topkWeights && refs(made.topkWeights),
        free: () => freeAll(owner, made.topkIdx, made.topkWeights),
      };
    },
  };
}

function weightsOf({
  topkWeights,
  numTokens,
  topk,
}: {
  topkWeights: Float32Array | null;
  numTokens: number;
  topk: number;
}) {
  return tensor("fp32", [numTokens, topk], topkWeights as Float32Array);
}
