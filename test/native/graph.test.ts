import { describe, expect, test } from "vitest";
import type { CombineResult, DispatchResult } from "../../core/backend.ts";
import type { Tensor } from "../../core/tensor.ts";
import { built, dataOf, expectSame, oracleDispatch, requestOf, settingsOf, uploadAll, why, withGroup } from "./open.ts";

const NO_EXTRAS = { topkWeights: null, probs: null, bias: [] };
const BUDGET = 30;

describe.skipIf(!built)(`results written again and graphs${why}`, () => {
  test("into: the earlier result's memory, new contents", () =>
    withGroup({ devices: 2, emulation: { seed: 2, poison: 1 } }, 4, async (group) => {
      const change = { numWorstTokens: BUDGET };
      const first = dataOf({}, 1);
      const x = await uploadAll(group, first.x);
      const before = await group.dispatch({ ...requestOf(first, "fused", change), x });
      for (const seed of [2, 3, 4]) {
        const data = dataOf({}, seed);
        const want = await oracleDispatch(data, "fused", change);
        const request = { ...requestOf(data, "fused", change), x: await uploadAll(group, data.x) };
        const got = await group.dispatch({ ...request, into: before });
        expect((got.x[0] as { pointer?: bigint }).pointer).toBe((before.x[0] as { pointer?: bigint }).pointer);
        await expectSame("x", got.x, want.x);
        await expectSame("topkIdx", got.topkIdx, want.topkIdx);
        expect(await got.handle.data()).toEqual(await want.handle.data());
      }
    }));

  test("into something that is not on the devices is refused", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const request = requestOf(dataOf(), "fused", { numWorstTokens: BUDGET });
      const host = await group.dispatch(request);
      await expect(group.dispatch({ ...request, into: host })).rejects.toThrow(
        /into: expected an earlier result on this/,
      );
    }));

  test("a captured dispatch and combine replay with changing routing and data", () =>
    withGroup({ devices: 2, emulation: { seed: 11, poison: 1 } }, 4, async (group) => {
      const change = { numWorstTokens: BUDGET };
      const first = dataOf({ hidden: 32 });
      const inputs = {
        x: await uploadAll(group, first.x),
        topkIdx: await uploadAll(group, first.topkIdx),
        topkWeights: await uploadAll(group, first.topkWeights),
      };
      const request = {
        kind: "fused" as const,
        x: inputs.x,
        scales: null,
        routing: { topkIdx: inputs.topkIdx, topkWeights: inputs.topkWeights },
        settings: settingsOf(first, change),
        asyncFinish: true,
      };
      const before = await group.dispatch(request);
      const combineOf = (of: DispatchResult) => ({ ...NO_EXTRAS, handle: of.handle, x: of.x, asyncFinish: true });
      const summed = await group.combine(combineOf(before));
      const results: { dispatched?: DispatchResult; combined?: CombineResult } = {};
      const graph = await group.capture(async () => {
        results.dispatched = await group.dispatch({ ...request, into: before });
        results.combined = await group.combine({ ...combineOf(results.dispatched), into: summed });
      });
      for (const seed of [5, 6, 7]) {
        const data = dataOf({ hidden: 32 }, seed);
        for (const [name, values] of Object.entries({
          x: data.x,
          topkIdx: data.topkIdx,
          topkWeights: data.topkWeights,
        })) {
          const to = inputs[name as keyof typeof inputs];
          for (const [rank, value] of (values as Tensor[]).entries()) await to[rank].upload(value as never);
        }
        for (const value of before.x) await (value as unknown as { fill(byte: number): Promise<void> }).fill(0xa5);
        const event = await graph.launch();
        await event.currentStreamWait();
        const want = await oracleDispatch(data, "fused", change);
        await expectSame(`seed ${seed}, x`, before.x, want.x);
        await expectSame(`seed ${seed}, topkIdx`, before.topkIdx, want.topkIdx);
        const wanted = await want.group.combine({ ...NO_EXTRAS, handle: want.handle, x: want.x });
        await expectSame(`seed ${seed}, combined`, summed.x, wanted.x);
      }
      graph.free();
      await expect(graph.launch()).rejects.toThrow(/graph: expected a live graph, received one that was freed/);
    }));

  test("what cannot be captured ends the capture, and the group goes on", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      await expect(group.capture(() => group.dispatch(requestOf(data)))).rejects.toThrow(/capture/);
      await expectSame("x", (await group.dispatch(requestOf(data))).x, (await oracleDispatch(data)).x);
    }));
});
