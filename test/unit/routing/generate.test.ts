import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { type GenerateOptions, generateRouting, routingGenerator, WORKLOADS } from "../../../core/routing/generate.ts";

const base: GenerateOptions = { workload: "uniform", seed: 1, numRanks: 4, numTokens: 500, numExperts: 32, topk: 4 };

function counts(options: GenerateOptions): number[] {
  const result = new Array<number>(options.numExperts).fill(0);
  for (const { topkIdx } of generateRouting(options)) for (const id of topkIdx.data) if (id >= 0) result[id]++;
  return result;
}

describe("every workload", () => {
  const sizes = fc.record({
    workload: fc.constantFrom(...WORKLOADS.keys()),
    seed: fc.integer(),
    numRanks: fc.integer({ min: 1, max: 6 }),
    local: fc.integer({ min: 1, max: 7 }),
    tokens: fc.array(fc.nat(40), { minLength: 6, maxLength: 6 }),
    share: fc.double({ min: 0.01, max: 1, noNaN: true }),
    layer: fc.nat(100),
  });
  it("gives valid rows of any size, the same each time", () => {
    fc.assert(
      fc.property(sizes, ({ workload, seed, numRanks, local, tokens, share, layer }) => {
        const numExperts = numRanks * local;
        const topk = Math.max(1, Math.round(share * numExperts));
        const numTokens = tokens.slice(0, numRanks);
        const options = { workload, seed, numRanks, numTokens, numExperts, topk, layer };
        const ranks = generateRouting(options);
        expect(ranks.length).toBe(numRanks);
        ranks.forEach(({ topkIdx, topkWeights }, rank) => {
          expect(topkIdx.shape).toEqual([numTokens[rank], topk]);
          expect(topkWeights?.shape).toEqual(topkIdx.shape);
          for (let token = 0; token < numTokens[rank]; token++) {
            const ids = [...topkIdx.data.subarray(token * topk, (token + 1) * topk)];
            const weights = [...(topkWeights?.data.subarray(token * topk, (token + 1) * topk) ?? [])];
            const chosen = ids.filter((id) => id !== -1);
            expect(new Set(chosen).size).toBe(chosen.length);
            for (const id of chosen) expect(id >= 0 && id < numExperts).toBe(true);
            ids.forEach((id, slot) => {
              if (id === -1) expect(weights[slot]).toBe(0);
            });
            const kept = weights.filter((_, slot) => ids[slot] >= 0);
            expect(kept).toEqual([...kept].sort((a, b) => b - a));
            if (chosen.length === topk) expect(Math.abs(weights.reduce((a, b) => a + b, 0) - 1)).toBeLessThan(1e-5);
          }
        });
        expect(generateRouting(options)).toEqual(ranks);
        const bare = generateRouting({ ...options, weights: false });
        expect(bare.map((r) => r.topkIdx)).toEqual(ranks.map((r) => r.topkIdx));
        expect(bare.every((r) => r.topkWeights === null)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it.each([...WORKLOADS.keys()])("%s: another seed, layer or rank gives other rows", (workload) => {
    const [first, second] = generateRouting({ ...base, workload });
    if (workload !== "only-rank-0") expect(second.topkIdx).not.toEqual(first.topkIdx);
    expect(generateRouting({ ...base, workload, seed: 2 })[0]).not.toEqual(first);
    expect(generateRouting({ ...base, workload, layer: 1 })[0]).not.toEqual(first);
  });

  it.each([...WORKLOADS.keys()])("%s: a rank's rows stay when it gets more tokens", (workload) => {
    const few = routingGenerator({ ...base, workload, numTokens: 100 })(0);
    const many = routingGenerator({ ...base, workload, numTokens: 200 })(0);
    expect(many.topkIdx.data.subarray(0, 400)).toEqual(few.topkIdx.data);
    expect(many.topkWeights?.data.subarray(0, 400)).toEqual(few.topkWeights?.data);
  });
});

describe("the laws", () => {
  const many = { ...base, numTokens: 10_000 };
  const slots = 4 * 10_000 * 4;

  it("uniform: every expert as often, within five standard errors", () => {
    const p = 4 / 32;
    for (const count of counts(many)) {
      expect(Math.abs(count - 40_000 * p)).toBeLessThan(5 * Math.sqrt(40_000 * p * (1 - p)));
    }
  });

  it("zipf: with one choice the shares are the harmonic ones", () => {
    const found = counts({ ...many, workload: "zipf", topk: 1 }).sort((a, b) => b - a);
    const harmonic = Array.from({ length: 32 }, (_, i) => 1 / (i + 1)).reduce((a, b) => a + b);
    for (let i = 0; i < 4; i++) {
      const p = 1 / (i + 1) / harmonic;
      expect(Math.abs(found[i] - 40_000 * p)).toBeLessThan(5 * Math.sqrt(40_000 * p * (1 - p)));
    }
  });

  it("zipf: exponent 0 is uniform in law", () => {
    const found = counts({ ...many, workload: "zipf", params: { exponent: 0 } });
    expect(Math.max(...found) / (slots / 32)).toBeLessThan(1.1);
  });

  it("hot-expert: share + (1 - share) k / E of the tokens use it", () => {
    const found = counts({ ...many, workload: "hot-expert", params: { share: 0.6, hotExpert: 5 } });
    const p = 0.6 + (0.4 * 4) / 32;
    expect(Math.abs(found[5] - 40_000 * p)).toBeLessThan(5 * Math.sqrt(40_000 * p * (1 - p)));
  });

  it("hot-rank: the first choice is on it with probability share; share 1 fills it first", () => {
    const first = generateRouting({ ...many, workload: "hot-rank", params: { share: 0.7, hotRank: 2 } });
    let hot = 0;
    for (const { topkIdx } of first)
      for (let i = 0; i < topkIdx.data.length; i += 4) if (topkIdx.data[i] >> 3 === 2) hot++;
    expect(Math.abs(hot - 28_000)).toBeLessThan(5 * Math.sqrt(40_000 * 0.21));
    const all = generateRouting({ ...base, workload: "hot-rank", topk: 10, params: { share: 1, hotRank: 1 } });
    for (const { topkIdx } of all) {
      for (let i = 0; i < topkIdx.data.length; i += 10) {
        const row = [...topkIdx.data.subarray(i, i + 10)];
        expect(row.slice(0, 8).sort((a, b) => a - b)).toEqual([8, 9, 10, 11, 12, 13, 14, 15]);
        expect(row.slice(8).every((id) => id >> 3 !== 1)).toBe(true);
      }
    }
  });

  it("only-rank-0: the other ranks choose nothing", () => {
    const [first, ...others] = generateRouting({ ...base, workload: "only-rank-0" });
    expect(first.topkIdx.data.every((id) => id >= 0)).toBe(true);
    for (const { topkIdx } of others) expect(topkIdx.data.every((id) => id === -1)).toBe(true);
  });

  it("group-limited: DeepSeek-V3's sizes use 4 of 8 groups at most, each group as often", () => {
    const options = { ...base, workload: "group-limited", numRanks: 8, numExperts: 256, topk: 8, numTokens: 2000 };
    const used = new Array<number>(8).fill(0);
    for (const { topkIdx } of generateRouting({ ...options, params: { numGroups: 8, topkGroups: 4 } })) {
      for (let i = 0; i < topkIdx.data.length; i += 8) {
        const groups = new Set(topkIdx.data.subarray(i, i + 8).map((id) => id >> 5));
        expect(groups.size).toBeLessThanOrEqual(4);
        for (const group of groups) used[group]++;
      }
    }
    const mean = used.reduce((a, b) => a + b) / 8;
    for (const count of used) expect(Math.abs(count / mean - 1)).toBeLessThan(0.05);
  });

  it("group-limited: groups are the nodes when there are several", () => {
    const options = { ...base, workload: "group-limited", ranksPerNode: 1, numTokens: 300 };
    for (const { topkIdx } of generateRouting(options)) {
      for (let i = 0; i < topkIdx.data.length; i += 4) {
        expect(new Set(topkIdx.data.subarray(i, i + 4).map((id) => id >> 3)).size).toBeLessThanOrEqual(2);
      }
    }
  });

  it("balanced: counts differ by at most one over the group, whatever the ranks hold", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(60), { minLength: 3, maxLength: 3 }),
        fc.integer({ min: 1, max: 15 }),
        (numTokens, topk) => {
          const found = counts({ workload: "balanced", seed: 3, numRanks: 3, numTokens, numExperts: 15, topk });
          expect(Math.max(...found) - Math.min(...found)).toBeLessThanOrEqual(1);
        },
      ),
    );
  });

  it("drops: shares of dropped slots and empty tokens", () => {
    const options = { ...many, workload: "drops", params: { dropShare: 0.25, emptyShare: 0.1 } };
    const kept = counts(options).reduce((a, b) => a + b);
    expect(Math.abs(kept / slots - 0.75 * 0.9)).toBeLessThan(0.01);
  });
});

describe("realistic", () => {
  it("gives documents their own experts: tokens of one document share more than tokens of two", () => {
    const [{ topkIdx }] = generateRouting({ ...base, workload: "realistic", numRanks: 1, numTokens: 64 * 200 });
    const shared = (a: number, b: number) => {
      const first = new Set(topkIdx.data.subarray(a * 4, a * 4 + 4));
      return [...topkIdx.data.subarray(b * 4, b * 4 + 4)].filter((id) => first.has(id)).length;
    };
    let inside = 0;
    let across = 0;
    for (let token = 0; token + 128 < 64 * 200; token += 64) {
      inside += shared(token, token + 32);
      across += shared(token, token + 64 + 32);
    }
    expect(inside).toBeGreaterThan(1.3 * across);
  });
});

describe("requests that cannot be met", () => {
  const refusals: [string, Partial<GenerateOptions>, RegExp][] = [
    ["an unknown workload", { workload: "gauss" }, /workload: expected realistic, uniform.*received gauss/],
    ["an unknown parameter", { params: { hotness: 1 } }, /uniform parameter: expected none, received hotness/],
    ["a parameter out of range", { workload: "drops", params: { dropShare: 2 } }, /drops dropShare: expected 0\.\.1/],
    ["NaN", { workload: "drops", params: { dropShare: Number.NaN } }, /dropShare/],
    ["more slots than experts", { topk: 33 }, /topk: expected a whole number in 1\.\.32, received 33/],
    ["experts that do not divide", { numExperts: 30 }, /numExperts/],
    ["the wrong number of ranks", { numTokens: [1, 2] }, /numTokens: expected one number, or one for each of 4 ranks/],
    ["negative tokens", { numTokens: -1 }, /numTokens/],
    ["a fraction as seed", { seed: 0.5 }, /seed/],
    ["groups that do not divide", { workload: "group-limited", params: { numGroups: 5 } }, /group-limited: expected/],
    [
      "too few experts in the groups",
      { workload: "group-limited", topk: 17, params: { topkGroups: 4 } },
      /group-limited: exp/,
    ],
    ["half a topic", { workload: "realistic", params: { numTopics: 7.5 } }, /numTopics: expected a whole number in 1/],
    ["a hot rank outside", { workload: "hot-rank", params: { hotRank: 4 } }, /hotRank: expected 0\.\.3, received 4/],
  ];
  it.each(refusals)("%s", (_, change, message) => {
    expect(() => generateRouting({ ...base, ...change })).toThrow(message);
    expect(() => generateRouting({ ...base, ...change })).toThrow(InvalidArgument);
  });
});
