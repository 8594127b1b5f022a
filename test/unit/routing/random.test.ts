import { describe, expect, it } from "vitest";
import { exp, log } from "../../../core/routing/elementary.ts";
import { iota, Random } from "../../../core/routing/random.ts";
import { uniformSampler, weightedSampler } from "../../../core/routing/sample.ts";

describe("random numbers", () => {
  it("are those of xoshiro128** (the reference implementation's first outputs from state 1, 2, 3, 4)", () => {
    const random = Random.fromState(new Uint32Array([1, 2, 3, 4]));
    const expected = [
      11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
    ];
    expect(expected.map(() => random.next())).toEqual(expected);
  });

  it("give different streams for different keys", () => {
    const keys = [[], [0], [1], [0, 0], [0, 1], [1, 0], [2 ** 32 + 1, 1], [-1]];
    const firsts = keys.map((key) => new Random(...key).next());
    expect(new Set(firsts).size).toBe(keys.length);
    expect(new Random(2 ** 32 + 1).next()).toBe(new Random(1).next());
  });

  it("are uniform and normal", () => {
    const random = new Random(7);
    const n = 200_000;
    let sum = 0;
    let squares = 0;
    const bins = new Int32Array(10);
    for (let i = 0; i < n; i++) {
      const z = random.normal();
      sum += z;
      squares += z * z;
      bins[random.below(10)]++;
    }
    // Five standard errors.
    expect(Math.abs(sum / n)).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(squares / n - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
    for (const count of bins) expect(Math.abs(count - n / 10)).toBeLessThan(5 * Math.sqrt(n * 0.09));
  });

  it("shuffle keeps every value", () => {
    expect(new Random(3).shuffle(iota(50)).sort()).toEqual(iota(50));
  });
});

describe("log and exp", () => {
  it("agree with the engine's within a few ulp", () => {
    const random = new Random(1);
    let worstLog = 0;
    let worstExp = 0;
    for (let i = 0; i < 100_000; i++) {
      const x = random.float() * 4 + 2 ** -32;
      worstLog = Math.max(worstLog, Math.abs(log(x) - Math.log(x)) / Math.max(Math.abs(Math.log(x)), 0.1));
      const y = (random.float() - 0.5) * 1200;
      worstExp = Math.max(worstExp, Math.abs(exp(y) / Math.exp(y) - 1));
    }
    expect(worstLog).toBeLessThan(1e-15);
    expect(worstExp).toBeLessThan(1e-15);
    expect(log(1)).toBe(0);
    expect(exp(0)).toBe(1);
  });
});

/** Share of draws in which `expert` comes at place `slot`. */
function frequencies(draw: (ids: Int32Array) => void, n: number, count: number, slot: number): number[] {
  const ids = new Int32Array(count);
  const counts = new Array<number>(n).fill(0);
  const draws = 40_000;
  for (let i = 0; i < draws; i++) {
    draw(ids);
    counts[ids[slot]]++;
  }
  return counts.map((c) => c / draws);
}

describe("sampling without replacement", () => {
  // P(second = j) = sum over i != j of w_i w_j / (1 - w_i), by hand for w = 0.7, 0.2, 0.1.
  const second = [
    (0.2 * 0.7) / 0.8 + (0.1 * 0.7) / 0.9,
    (0.7 * 0.2) / 0.3 + (0.1 * 0.2) / 0.9,
    (0.7 * 0.1) / 0.3 + (0.2 * 0.1) / 0.8,
  ];

  it("draws by weight among what is left", () => {
    const random = new Random(5);
    const sample = weightedSampler(new Float64Array([7, 2, 1]));
    const found = frequencies((ids) => sample(random, ids, 0, 2), 3, 2, 1);
    found.forEach((share, i) => {
      expect(Math.abs(share - second[i])).toBeLessThan(0.0125);
    });
  });

  it("keeps the law when heavy experts are drawn and only light ones are left", () => {
    const random = new Random(6);
    const sample = weightedSampler(new Float64Array([1e9, 2, 1]));
    const found = frequencies((ids) => sample(random, ids, 0, 3), 3, 3, 1);
    expect(Math.abs(found[1] - 2 / 3)).toBeLessThan(0.0125);
  });

  it("keeps the law when rejections give up and the draw is exact", () => {
    const random = new Random(6);
    // More heavy experts than there are tables without them: the 19th draw is rejected until it is made exactly.
    const weights = Float64Array.from([2, ...new Array<number>(18).fill(1e9), 1]);
    const sample = weightedSampler(weights);
    const found = frequencies((ids) => sample(random, ids, 0, 19), 20, 19, 18);
    expect(Math.abs(found[0] - 2 / 3)).toBeLessThan(0.0125);
    expect(Math.abs(found[19] - 1 / 3)).toBeLessThan(0.0125);
  });

  it("takes experts of weight 0 only when no other is left", () => {
    const random = new Random(8);
    const sample = weightedSampler(new Float64Array([0, 1, 0, 1]));
    const ids = new Int32Array(4);
    for (let i = 0; i < 100; i++) {
      sample(random, ids, 0, 4);
      expect([...ids.subarray(0, 2)].sort()).toEqual([1, 3]);
      expect([...ids.subarray(2)].sort()).toEqual([0, 2]);
    }
  });

  it.each([1, 2, 3, 4])("uniform: every expert equally often at the last of %i places", (count) => {
    const random = new Random(9);
    const sample = uniformSampler(4);
    for (const share of frequencies((ids) => sample(random, ids, 0, count), 4, count, count - 1)) {
      expect(Math.abs(share - 0.25)).toBeLessThan(0.011);
    }
  });
});
