import { describe, expect, test } from "vitest";
import type { OutputChunk } from "../../core/backend.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { bytesOf, type Tensor, tensor } from "../../core/tensor.ts";
import { built, dataOf, expectSame, oracleDispatch, requestOf, uploadAll, why, withGroup } from "./open.ts";

const NO_EXTRAS = { topkWeights: null, probs: null, bias: [] };

function like(values: readonly unknown[]): Tensor[] {
  return (values as Tensor[]).map((value) => tensor(value.dtype, value.shape));
}

describe.skipIf(!built)(`outputs${why}`, () => {
  test("preallocated out is filled and returned, from host and device inputs", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      const want = await oracleDispatch(data);
      for (const x of [data.x, await uploadAll(group, data.x)]) {
        const out = like(want.x);
        const got = await group.dispatch({ ...requestOf(data), x, out });
        got.x.forEach((value, i) => expect(value).toBe(out[i]));
        await expectSame("x", out, want.x);
        const sums = like(data.x);
        const combined = await group.combine({ ...NO_EXTRAS, handle: got.handle, x: out, out: sums });
        combined.x.forEach((value, i) => expect(value).toBe(sums[i]));
        const wanted = await want.group.combine({ ...NO_EXTRAS, handle: want.handle, x: want.x });
        await expectSame("combined", sums, wanted.x);
      }
    }));

  test("out of another shape or dtype is refused and leaves the group usable", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      const want = await oracleDispatch(data);
      const short = like(want.x);
      short[1] = tensor("bf16", [short[1].shape[0] - 1, 16]);
      await expect(group.dispatch({ ...requestOf(data), out: short })).rejects.toThrow(
        /out: expected bf16 \[\d+, 16\]/,
      );
      await expect(group.dispatch({ ...requestOf(data), out: short.slice(1) })).rejects.toThrow(InvalidArgument);
      await expectSame("x", (await group.dispatch(requestOf(data))).x, want.x);
    }));

  test("a refused `into` leaves no memory behind, also where the routing was multihot on the devices", () =>
    withGroup({ devices: 2 }, 2, async (group) => {
      const settings = {
        numExperts: 2,
        expertAlignment: 1,
        numWorstTokens: 0,
        padMultiple: 1,
        numPermutedTokens: null,
      };
      const map = tensor("bool", [2, 2], Uint8Array.of(1, 0, 0, 1));
      const routing = { routingMap: await uploadAll(group, [map, map]), probs: null };
      const x = await uploadAll(group, [tensor("fp32", [2, 4]), tensor("fp32", [2, 4])]);
      const request = { kind: "hybrid-ep", x, scales: null, routing, settings } as const;
      const elsewhere = await group.dispatch({ ...request, x: [tensor("fp32", [2, 4]), tensor("fp32", [2, 4])] });
      const used = async () => (await group.memory()).map(({ pool, poolFree }) => pool - poolFree);
      const before = await used();
      await expect(group.dispatch({ ...request, into: elsewhere })).rejects.toThrow(/into: expected an earlier result/);
      expect(await used()).toEqual(before);
    }));

  test("consume gets every row once, in order within a rank; nothing is returned", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ dtype: "fp8e4m3", hidden: 200 });
      const want = await oracleDispatch(data, "hybrid-ep");
      const seen: OutputChunk[] = [];
      const fractions: number[] = [];
      const got = await group.dispatch({
        ...requestOf(data, "hybrid-ep"),
        consume: (chunk) => seen.push({ ...chunk, bytes: chunk.bytes.slice() }),
        progress: (fraction) => fractions.push(fraction),
      });
      expect([got.x, got.scales]).toEqual([[], []]);
      for (const [name, tensors] of [["x", want.x] as const, ["scales", want.scales ?? []] as const]) {
        for (const [rank, value] of (tensors as readonly Tensor[]).entries()) {
          const chunks = seen.filter((chunk) => chunk.name === name && chunk.rank === rank);
          expect(chunks.reduce((rows, chunk) => rows + chunk.numRows, 0)).toBe(value.shape[0]);
          expect(Buffer.concat(chunks.map(({ bytes }) => bytes))).toEqual(Buffer.from(bytesOf(value)));
        }
      }
      expect(fractions.at(-1)).toBe(1);
      expect([...fractions].sort((a, b) => a - b)).toEqual(fractions);
    }));

  test("chunks of large outputs ascend", () =>
    withGroup({ devices: 1 }, 1, async (group) => {
      const hidden = 1 << 20;
      const x = tensor("fp32", [9, hidden]);
      x.data.forEach((_, i, values) => (values[i] = Math.floor(i / hidden)));
      const firstRows: number[] = [];
      await group.dispatch({
        kind: "fused",
        x: [x],
        scales: null,
        routing: { topkIdx: [tensor("i32", [9, 1])], topkWeights: null },
        settings: { numExperts: 1, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
        consume: ({ firstRow, numRows, bytes }) => {
          firstRows.push(firstRow);
          const rows = new Float32Array(bytes.buffer, bytes.byteOffset, numRows * hidden);
          for (let row = 0; row < numRows; row++) expect(rows[row * hidden + 5]).toBe(firstRow + row);
        },
      });
      expect(firstRows).toEqual([0, 4, 8]);
    }));

  test("an error of consume rejects the operation, and the group goes on", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const consume = () => {
        throw new Error("enough");
      };
      await expect(group.dispatch({ ...requestOf(dataOf()), consume })).rejects.toThrow("enough");
      await expectSame("x", (await group.dispatch(requestOf(dataOf()))).x, (await oracleDispatch(dataOf())).x);
    }));

  test("casts and scaleRows keep device tensors on the devices", () =>
    withGroup({ devices: 2 }, 2, async (group) => {
      const x = [tensor("fp32", [1, 2], Float32Array.of(448, -1)), tensor("fp32", [2, 2], Float32Array.of(2, 4, 8, 0))];
      const factors = [tensor("fp32", [1], Float32Array.of(2)), tensor("fp32", [2], Float32Array.of(0.5, 3))];
      const scaled = await group.scaleRows(await uploadAll(group, x), await uploadAll(group, factors));
      expect(scaled[0]).toHaveProperty("download");
      await expectSame("scaled", scaled, [
        tensor("fp32", [1, 2], Float32Array.of(896, -2)),
        tensor("fp32", [2, 2], Float32Array.of(1, 2, 24, 0)),
      ]);
      const cast = await group.castToFp8(await uploadAll(group, x));
      // amax 448: scale 1, factor 1; 448 is 0x7e and -1 is 0xb8 in e4m3.
      await expectSame("codes", cast.x.slice(0, 1), [tensor("fp8e4m3", [1, 2], Uint8Array.of(0x7e, 0xb8))]);
      await expectSame("scales", cast.scales.slice(0, 1), [tensor("fp32", [1, 1], Float32Array.of(1))]);
      const back = await group.castBack(cast.x, cast.scales);
      await expectSame("back", back.slice(0, 1), [tensor("bf16", [1, 2], Uint16Array.of(0x43e0, 0xbf80))]);
    }));
});
