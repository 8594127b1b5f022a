import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { decodeHandle, encodeHandle, HANDLE_VERSION } from "../../../core/handle/encode.ts";
import { Handle } from "../../../core/handle/handle.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";
import { handleCase, makeHandle } from "./handles.ts";

const KINDS = ["fused", "hybrid-ep"] as const;
const CASE = {
  numRanks: 2,
  ranksPerNode: 1,
  numExperts: 4,
  topkIdx: [
    [[3, 0]],
    [
      [2, -1],
      [1, 3],
    ],
  ],
  budget: 0,
  multiple: 1,
};

const decode = (tensors: Map<string, Tensor>, ranks: number[]) =>
  decodeHandle(ranks, async (name) => tensors.get(name));

async function refusal(tensors: Map<string, Tensor>, ranks = [0, 1]): Promise<InvalidArgument> {
  const error = await decode(tensors, ranks).then(
    () => new Error("the tensors were accepted"),
    (thrown: unknown) => thrown,
  );
  if (error instanceof InvalidArgument) return error;
  throw error;
}

describe.each(KINDS)("%s handle as tensors", (kind) => {
  test("decode(encode(handle)) is the handle, for any routing", async () => {
    await fc.assert(
      fc.asyncProperty(handleCase, async (c) => {
        const data = makeHandle(kind, c);
        expect(await decode(encodeHandle(data), [...data.meta.localRanks])).toEqual(data);
      }),
      { seed: 4, numRuns: 200 },
    );
  });

  test("every tensor that is missing is named", async () => {
    const names = [...encodeHandle(makeHandle(kind, CASE)).keys()];
    expect(names).toHaveLength(2 * (kind === "fused" ? 8 : 10));
    for (const name of names) {
      const tensors = encodeHandle(makeHandle(kind, CASE));
      tensors.delete(name);
      expect((await refusal(tensors)).message).toContain(name);
    }
  });

  test("every tensor of a wrong dtype or shape is refused", async () => {
    for (const [name, value] of encodeHandle(makeHandle(kind, CASE))) {
      for (const wrong of [tensor("fp32", value.shape), tensor(value.dtype, [...value.shape, 1], value.data)]) {
        const tensors = encodeHandle(makeHandle(kind, CASE)).set(name, wrong as Tensor);
        const error = await refusal(tensors);
        expect(error.message).toContain(name.replace(/^rank\d\./, ""));
        expect(error.problem?.where?.rank).toBe(Number(name[4]));
      }
    }
  });

  test("ranks that disagree about the settings are refused by name", async () => {
    const tensors = encodeHandle(makeHandle(kind, CASE));
    const other = encodeHandle(makeHandle(kind, { ...CASE, ranksPerNode: 2 }));
    tensors.set("rank1.handle.meta", other.get("rank1.handle.meta") as Tensor);
    expect((await refusal(tensors)).message).toContain("ranksPerNode: expected 1 as rank 0, received 2 at rank 1");
  });
});

function withMeta(change: (values: BigInt64Array) => BigInt64Array): Map<string, Tensor> {
  const tensors = encodeHandle(makeHandle("fused", CASE));
  for (const rank of [0, 1]) {
    const meta = tensors.get(`rank${rank}.handle.meta`) as Tensor<"i64">;
    const values = change(meta.data.slice());
    tensors.set(`rank${rank}.handle.meta`, tensor("i64", [values.length], values));
  }
  return tensors;
}

test.each([0, 2, 99, -1])("version %i is refused by name", async (version) => {
  expect(HANDLE_VERSION).toBe(1);
  const error = await refusal(withMeta((values) => values.fill(BigInt(version), 0, 1)));
  expect(error.message).toContain(`handle version: expected version 1`);
  expect(error.message).toContain(`received version ${version}`);
});

test.each([-1n, 2n, 1n << 40n])("kind %s is refused", async (kind) => {
  expect((await refusal(withMeta((values) => values.fill(kind, 1, 2)))).message).toContain("handle kind");
});

test.each([0, 1, 12, 14])("meta of %i fields is refused", async (length) => {
  const grown = (values: BigInt64Array) => BigInt64Array.from({ length }, (_, i) => values[i] ?? 0n);
  expect((await refusal(withMeta(grown))).message).toContain("handle version");
});

test("sizes beyond 2^53 or 2^31 are refused, not rounded", async () => {
  for (let field = 2; field < 13; field++) {
    for (const size of [1n << 31n, 1n << 62n, -(1n << 62n), -7n]) {
      await refusal(withMeta((values) => values.fill(size, field, field + 1)));
    }
  }
});

test("no ranks at all is refused", async () => {
  expect((await refusal(new Map(), [])).message).toContain("handle ranks");
});

test("one rank's part of a group is a handle of its own", async () => {
  const tensors = encodeHandle(makeHandle("fused", CASE));
  const data = await decode(tensors, [1]);
  expect(data.meta.localRanks).toEqual([1]);
  expect(data.ranks.map((rank) => rank.rank)).toEqual([1]);
});

test("a lazy handle loads its arrays once", async () => {
  const data = makeHandle("fused", CASE);
  let loads = 0;
  const handle = new Handle(data.meta, async () => {
    loads++;
    return data;
  });
  expect(loads).toBe(0);
  expect(await Promise.all([handle.data(), handle.data()])).toEqual([data, data]);
  expect(await handle.data()).toBe(data);
  expect(loads).toBe(1);
});

test("counts alone come without the arrays, until these are on the host", async () => {
  const data = makeHandle("fused", CASE);
  let loads = 0;
  const load = async () => {
    loads++;
    return data;
  };
  const counts = data.ranks.map((rank) => rank.tokensPerExpert);
  const other = [Int32Array.of(7), Int32Array.of(8)];
  const handle = new Handle(data.meta, load, null, async () => other);
  expect([await handle.tokensPerExpert(), loads, handle.isOnHost]).toEqual([other, 0, false]);
  await handle.data();
  expect([await handle.tokensPerExpert(), loads, handle.isOnHost]).toEqual([counts, 1, true]);
  expect(await new Handle(data.meta, load).tokensPerExpert()).toEqual(counts);
});

test("a load that failed may be tried again", async () => {
  const data = makeHandle("fused", CASE);
  let loads = 0;
  const handle = new Handle(data.meta, async () => {
    if (++loads === 1) throw new Error("the device was busy");
    return data;
  });
  await expect(handle.data()).rejects.toThrow("the device was busy");
  expect(await handle.data()).toBe(data);
});
