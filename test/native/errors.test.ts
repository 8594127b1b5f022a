/** Bad requests are refused with the oracle's own words, and nothing has run. */
import { describe, expect, test } from "vitest";
import type { Group } from "../../core/backend.ts";
import { Handle } from "../../core/handle/handle.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { built, dataOf, expectSame, oracleDispatch, requestOf, settingsOf, why, withGroup } from "./open.ts";

const data = dataOf();
const wide = tensor("bf16", [6, 17]);
const swap = (values: readonly Tensor[], rank: number, value: Tensor) =>
  values.map((one, i) => (i === rank ? value : one));
const ids = (change: (values: BigInt64Array) => void) => {
  const values = BigInt64Array.from(data.topkIdx[3].data as BigInt64Array);
  change(values);
  return { topkIdx: swap(data.topkIdx, 3, tensor("i64", [6, 2], values)), topkWeights: data.topkWeights };
};
const fused = requestOf(data);
const combine = async (group: Group) => {
  const { handle, x } = await group.dispatch(fused);
  return { handle, x, topkWeights: null, probs: null, bias: [] };
};

/** What is wrong, by the call that it is wrong in. */
const BAD: Record<string, (group: Group) => Promise<unknown>> = {
  "an id past the experts": (group) => group.dispatch({ ...fused, routing: ids((values) => (values[5] = 8n)) }),
  "an id below -1": (group) => group.dispatch({ ...fused, routing: ids((values) => (values[0] = -2n)) }),
  "an expert twice": (group) => group.dispatch({ ...fused, routing: ids((values) => (values[3] = values[2])) }),
  "an id of 33 bits": (group) => group.dispatch({ ...fused, routing: ids((values) => (values[1] = 1n << 32n)) }),
  "rows of another width": (group) => group.dispatch({ ...fused, x: swap(data.x, 2, wide) }),
  "too few tensors": (group) => group.dispatch({ ...fused, x: data.x.slice(1) }),
  "rows of another dtype": (group) => group.dispatch({ ...fused, x: swap(data.x, 1, tensor("fp16", [6, 16])) }),
  "rows of integers": (group) => group.dispatch({ ...fused, x: data.x.map(() => tensor("i32", [6, 16])) }),
  "rows of three dimensions": (group) => group.dispatch({ ...fused, x: data.x.map(() => tensor("bf16", [6, 4, 4])) }),
  "no columns": (group) => group.dispatch({ ...fused, x: data.x.map(() => tensor("bf16", [6, 0])) }),
  "fewer rows of routing": (group) => group.dispatch({ ...fused, x: swap(data.x, 0, tensor("bf16", [5, 16])) }),
  "scales of another dtype": (group) =>
    group.dispatch({ ...fused, scales: data.x.map(() => tensor("bf16", [6, 1])) as never }),
  "scales with other rows": (group) => group.dispatch({ ...fused, scales: data.x.map(() => tensor("fp32", [7, 1])) }),
  "experts not divisible": (group) => group.dispatch({ ...fused, settings: settingsOf(data, { numExperts: 9 }) }),
  "a negative budget": (group) => group.dispatch({ ...fused, settings: settingsOf(data, { numWorstTokens: -1 }) }),
  "half an alignment": (group) => group.dispatch({ ...fused, settings: settingsOf(data, { expertAlignment: 0.5 }) }),
  "a budget that is no multiple": (group) =>
    group.dispatch({
      ...fused,
      kind: "hybrid-ep",
      settings: settingsOf(data, { padMultiple: 4, numPermutedTokens: 6 }),
    }),
  "neither routing nor handle": (group) => group.dispatch({ kind: "fused", x: data.x, scales: null }),
  "routing and handle": async (group) => group.dispatch({ ...fused, handle: (await combine(group)).handle }),
  "a fused handle for hybrid-ep": async (group) =>
    group.dispatch({ kind: "hybrid-ep", x: data.x, scales: null, handle: (await combine(group)).handle }),
  "a cached dispatch of other rows": async (group) => {
    const { handle } = await combine(group);
    return group.dispatch({ kind: "fused", x: data.x.map(() => tensor("bf16", [5, 16])), scales: null, handle });
  },
  "a combine of other rows": async (group) => group.combine({ ...(await combine(group)), x: data.x }),
  "a combine of fp8": async (group) => {
    const request = await combine(group);
    return group.combine({ ...request, x: request.x.map(({ shape }) => tensor("fp8e4m3", shape)) });
  },
  "probs for a fused handle": async (group) => group.combine({ ...(await combine(group)), probs: data.topkWeights }),
  "three biases": async (group) => group.combine({ ...(await combine(group)), bias: [data.x, data.x, data.x] }),
  "a bias of another dtype": async (group) =>
    group.combine({ ...(await combine(group)), bias: [data.x.map(() => tensor("fp32", [6, 16]))] }),
  "weights of other rows": async (group) => group.combine({ ...(await combine(group)), topkWeights: data.topkWeights }),
  "a multihot of another width": (group) =>
    group.dispatch({ ...fused, routing: { routingMap: data.x.map(() => tensor("bool", [6, 9])), probs: null } }),
  "layout of a bad id": (group) =>
    group.layout(
      ids((values) => (values[5] = 99n)),
      8,
    ),
  "a cast of fp8": (group) => group.castToFp8(data.x.map(() => tensor("fp8e4m3", [6, 16]))),
  "a cast back with other scales": (group) =>
    group.castBack(
      data.x.map(() => tensor("fp8e4m3", [6, 16])),
      data.x.map(() => tensor("fp32", [6, 2])),
    ),
  "factors of other rows": (group) =>
    group.scaleRows(
      data.x,
      data.x.map(() => tensor("fp32", [5])),
    ),
};

const outcome = (call: Promise<unknown>) =>
  call.then(
    () => "no error",
    (error: Error) => `${error.constructor.name} ${error.message}`,
  );

describe.skipIf(!built)(`bad requests${why}`, () => {
  test.each(Object.entries(BAD))("%s", (_, call) =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const oracle = await createOracleBackend().createGroup({ numRanks: 4 });
      const want = await outcome(call(oracle));
      expect(want).toMatch(/^InvalidArgument /);
      expect(await outcome(call(group))).toBe(want);
      await expectSame("x", (await group.dispatch(fused)).x, (await oracleDispatch(data)).x);
    }),
  );

  test("a damaged handle", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const { handle, x } = await oracleDispatch(data);
      const good = await handle.data();
      const damage: [RegExp, (copy: typeof good) => void][] = [
        [/handle\.send_row/, (copy) => (copy.ranks[1].sendRow[0] = -5)],
        [/handle\.send_rank/, (copy) => (copy.ranks[2].sendRank[0] = 4)],
        [/handle\.row_src/, (copy) => (copy.ranks[0].rowSrcToken[0] = 77)],
        [/handle\.row_src/, (copy) => (copy.ranks[0].rowSrcRank[0] = 9)],
      ];
      for (const [message, change] of damage) {
        const copy = structuredClone(good);
        change(copy);
        const call = group.combine({ handle: Handle.of(copy), x, topkWeights: null, probs: null, bias: [] });
        await expect(call).rejects.toThrow(message);
      }
      await group.combine({ handle, x, topkWeights: null, probs: null, bias: [] });
    }));
});
