import { describe, expect, test } from "vitest";
import { describeVerified, isVerified } from "../../cli/verifyReport.ts";
import { expectedWire, wireLaws } from "../../cli/wire.ts";
import { rankRouting } from "../../core/layout/routing.ts";
import { tensor } from "../../core/tensor.ts";

// Expert e on rank e; ranks 0 and 1 on one node, 2 and 3 on the other.
const choices = [
  [
    [2, 3],
    [1, -1],
  ],
  [],
  [],
  [[0, 3]],
];
const routings = choices.map((rows, rank) =>
  rankRouting(rank, tensor("i32", [rows.length, 2], Int32Array.from(rows.flat())), null, 4),
);
// A row is 200 bytes and 2 scales on its way out, 200 bf16 on its way back.
const [OUT, BACK] = [208, 400];
const job = { shape: { numRanks: 4, ranksPerNode: 2, numExperts: 4 }, hidden: 200, dtype: "fp8e4m3" } as const;
const expected = expectedWire(job, routings);

describe("bytes of each rank on NICs and NVLinks, by hand", () => {
  test("a row goes once to the other node, to the rank with the source's index, and on from there", () => {
    // Rank 0's first token: to rank 2, which hands it to rank 3; its second to rank 1. Rank 3's: to rank 1, which hands it to rank 0.
    expect(expected).toEqual([
      { rank: 0, networkRows: 1, networkBytes: OUT, linkRows: 2, linkBytes: OUT + BACK },
      { rank: 1, networkRows: 1, networkBytes: BACK, linkRows: 2, linkBytes: OUT + BACK },
      { rank: 2, networkRows: 1, networkBytes: BACK, linkRows: 1, linkBytes: OUT },
      { rank: 3, networkRows: 1, networkBytes: OUT, linkRows: 1, linkBytes: BACK },
    ]);
  });

  test("laws hold for what was expected, rank by rank", () => {
    const bytes = { expected: 2 * (OUT + BACK), received: 2 * (OUT + BACK) };
    const linkBytes = { expected: 3 * (OUT + BACK), received: 3 * (OUT + BACK) };
    expect(wireLaws(expected, expected, false)).toEqual([
      { law: "rows that each rank sent to other hosts = the layout's", ok: true, expected: 4, received: 4 },
      { law: "bytes that each rank sent to other hosts = the layout's", ok: true, ...bytes },
      { law: "rows that each rank sent over NVLink = the layout's", ok: true, expected: 6, received: 6 },
      { law: "bytes that each rank sent over NVLink = the layout's", ok: true, ...linkBytes },
    ]);
    // One process's ranks are compared with their own.
    expect(wireLaws(expected, expected.slice(2), false).every(({ ok }) => ok)).toBe(true);
  });

  test("a byte too many, and the right total on the wrong ranks, name the rank", () => {
    const more = expected.map((one) => (one.rank === 1 ? { ...one, linkBytes: one.linkBytes + 1 } : one));
    const first = { where: "rank 1", expected: OUT + BACK, received: OUT + BACK + 1 };
    expect(wireLaws(expected, more, false).filter(({ ok }) => !ok)).toMatchObject([{ first }]);
    const moved = expected.map((one, i) => ({ ...one, networkBytes: expected[(i + 1) % 4].networkBytes }));
    const [broken, ...others] = wireLaws(expected, moved, false).filter(({ ok }) => !ok);
    expect(broken.expected).toBe(broken.received);
    expect(broken.first).toEqual({ where: "rank 0", expected: OUT, received: BACK });
    expect(others).toEqual([]);
  });

  test("with cut rows NVLinks are not compared", () => {
    expect(wireLaws(expected, expected, true)).toMatchObject([
      { law: "rows that each rank sent to other hosts = the layout's" },
      { law: "bytes that each rank sent to other hosts = the layout's" },
    ]);
  });
});

test("verify's report names the law, the layer and the rank that broke it", () => {
  const more = expected.map((one) => (one.rank === 1 ? { ...one, linkBytes: one.linkBytes + 1 } : one));
  const laws = wireLaws(expected, more, false).map((law) => ({ ...law, layer: "7" }));
  const verified = { results: [], laws, layers: [], runs: [] };
  expect(isVerified(verified)).toBe(false);
  expect(describeVerified(verified, []).split("\n").slice(-1)).toEqual([
    "  BROKEN in layer 7: bytes that each rank sent over NVLink = the layout's: expected 1824, received 1825 (first rank 1: expected 608, received 609)",
  ]);
});
