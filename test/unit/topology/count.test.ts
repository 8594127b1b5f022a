import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { reversed, TRAFFIC_ARRAYS, TrafficCounter } from "../../../core/topology/index.ts";

/** The same numbers from their definitions, one set per token: slow and obvious. */
function bruteForce(ids: readonly (readonly number[])[][], numRanks: number, perNode: number, numExperts: number) {
  const perRank = numExperts / numRanks;
  const zero = () => new Float64Array(numRanks);
  const t = Object.fromEntries(TRAFFIC_ARRAYS.map((name) => [name, zero()])) as Record<
    (typeof TRAFFIC_ARRAYS)[number],
    Float64Array
  >;
  const node = (rank: number) => Math.floor(rank / perNode);
  ids.forEach((tokens, src) => {
    t.numTokens[src] = tokens.length;
    for (const token of tokens) {
      const slots = token.filter((expert) => expert >= 0).map((expert) => Math.floor(expert / perRank));
      t.sendSlots[src] += slots.length;
      for (const dst of slots) {
        t.recvSlots[dst]++;
        if (dst === src) continue;
        (node(dst) === node(src) ? t.slotNvlinkOut : t.slotNicOut)[src]++;
        (node(dst) === node(src) ? t.slotNvlinkIn : t.slotNicIn)[dst]++;
      }
      for (const dst of new Set(slots)) {
        const stop = node(dst) * perNode + (src % perNode);
        t.sendRows[src]++;
        t.recvRows[dst]++;
        t.railWrites[stop]++;
        if (slots.filter((other) => other === dst).length > 1) t.multiRows[dst]++;
        if (dst !== stop) {
          t.railNvlinkOut[stop]++;
          t.railNvlinkIn[dst]++;
        }
        if (dst === src) continue;
        (node(dst) === node(src) ? t.directNvlinkOut : t.directNicOut)[src]++;
        (node(dst) === node(src) ? t.directNvlinkIn : t.directNicIn)[dst]++;
      }
      for (const n of new Set(slots.map(node))) {
        const stop = n * perNode + (src % perNode);
        t.nodeRows[src]++;
        t.railReads[stop]++;
        if (n === node(src)) continue;
        t.railNicOut[src]++;
        t.railNicIn[stop]++;
      }
    }
  });
  return t;
}

describe("TrafficCounter", () => {
  it("counts a case by hand", () => {
    // Two nodes of two ranks, one expert each; rank 1 has two tokens.
    const counter = new TrafficCounter({ numRanks: 4, ranksPerNode: 2, numExperts: 4, keepPairs: true });
    counter.add(0, Int32Array.of(), 2);
    counter.add(1, Int32Array.of(0, 2, 3, -1), 2);
    const t = counter.traffic;
    expect([...t.sendRows]).toEqual([0, 3, 0, 0]);
    expect([...t.recvRows]).toEqual([1, 0, 1, 1]);
    // Both tokens cross to node 1 at the rail stop, rank 3; the first goes on to rank 2, the second stays.
    expect([...t.railNicOut]).toEqual([0, 2, 0, 0]);
    expect([...t.railNicIn]).toEqual([0, 0, 0, 2]);
    expect([...t.railNvlinkOut]).toEqual([0, 1, 0, 1]);
    expect([...t.railNvlinkIn]).toEqual([1, 0, 1, 0]);
    expect(counter.pairRows?.slice(4, 8)).toEqual(Int32Array.of(1, 0, 1, 1));
    expect(counter.pairNodeRows?.slice(2, 4)).toEqual(Int32Array.of(1, 2));
    expect([...counter.expertSlots]).toEqual([1, 0, 1, 1]);
  });

  it("equals the definitions for any routing, in any order of sources", () => {
    const routing = fc
      .record({
        nodes: fc.integer({ min: 1, max: 3 }),
        perNode: fc.integer({ min: 1, max: 3 }),
        local: fc.integer({ min: 1, max: 3 }),
      })
      .chain(({ nodes, perNode, local }) => {
        const numRanks = nodes * perNode;
        const numExperts = numRanks * local;
        const token = fc
          .shuffledSubarray(Array.from({ length: numExperts }, (_, e) => e))
          .map((list) => Array.from({ length: 3 }, (_, slot) => list[slot] ?? -1));
        const ranks = fc.array(fc.array(token, { maxLength: 6 }), { minLength: numRanks, maxLength: numRanks });
        return fc.record({
          ranks,
          numRanks: fc.constant(numRanks),
          perNode: fc.constant(perNode),
          numExperts: fc.constant(numExperts),
          order: fc.shuffledSubarray(
            Array.from({ length: numRanks }, (_, r) => r),
            { minLength: numRanks },
          ),
        });
      });
    fc.assert(
      fc.property(routing, ({ ranks, numRanks, perNode, numExperts, order }) => {
        const counter = new TrafficCounter({ numRanks, ranksPerNode: perNode, numExperts });
        for (const src of order) counter.add(src, Int32Array.from(ranks[src].flat()), 3);
        const expected = bruteForce(ranks, numRanks, perNode, numExperts);
        for (const name of TRAFFIC_ARRAYS) expect([...counter.traffic[name]], name).toEqual([...expected[name]]);
      }),
    );
  });

  it("keeps what is sent equal to what is received, and turns round for combine", () => {
    const counter = new TrafficCounter({ numRanks: 2, ranksPerNode: 1, numExperts: 4 });
    counter.add(0, Int32Array.of(2, 3, 0, 1), 2);
    counter.add(1, Int32Array.of(0, 3), 2);
    const sum = (values: Float64Array) => values.reduce((a, b) => a + b, 0);
    const back = reversed(counter.traffic);
    for (const t of [counter.traffic, back]) {
      expect(sum(t.railNicOut)).toBe(sum(t.railNicIn));
      expect(sum(t.sendRows)).toBe(sum(t.recvRows));
    }
    expect(back.railNicOut).toEqual(counter.traffic.railNicIn);
  });

  it("names rank, token and slot of an id out of range, and sizes that do not divide", () => {
    const counter = new TrafficCounter({ numRanks: 2, ranksPerNode: 2, numExperts: 4 });
    expect(() => counter.add(1, Int32Array.of(0, 1, 2, 4), 2)).toThrow(
      /-1\.\.3, received 4 at rank 1, token 1, slot 1/,
    );
    expect(() => counter.add(0, Int32Array.of(-2, 1), 2)).toThrow(/received -2 at rank 0, token 0, slot 0/);
    expect(() => new TrafficCounter({ numRanks: 3, ranksPerNode: 3, numExperts: 4 })).toThrow(/numExperts/);
  });
});
